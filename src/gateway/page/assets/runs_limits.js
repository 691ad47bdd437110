// What the list of runs is limited to, as the URL says it and as the gateway is asked.

import { now } from "./format.js";

export const FIELDS = ["q", "flow", "tag", "worker"];
/** Spans of time that can be chosen, in seconds. */
export const SPANS = { "15m": 900, "1h": 3600, "24h": 86_400, "7d": 604_800 };

/** What the list is limited to, by the URL. */
export function limits(query) {
  const of = (name) => query.get(name) ?? "";
  return {
    status: of("status"),
    q: of("q"),
    flow: of("flow"),
    tag: of("tag"),
    worker: of("worker"),
    span: Object.hasOwn(SPANS, of("since")) ? SPANS[of("since")] : null,
    cursor: of("cursor"),
  };
}

export function isFiltered(query) {
  return ["status", "since", ...FIELDS].some((name) => query.get(name));
}

/** Whether a run is within the limits: the gateway's rules, for runs that come as events. */
export function fits(run, { status, q, flow, tag, worker, span }) {
  const text = q.toLowerCase();
  const words = [run.run_id, run.flow_name, run.tag, ...(run.tags ?? []), run.worker_id ?? "", run.error ?? ""];
  return (
    (!status || run.status === status) &&
    (!flow || run.flow_name === flow) &&
    (!tag || run.tag === tag) &&
    (!worker || run.worker_id === worker) &&
    (!span || run.updated_at > now() - span) &&
    (!text || words.some((word) => word.toLowerCase().includes(text)))
  );
}

/** The limits as a query of `GET /runs`. */
export function asQuery({ span, cursor, ...rest }, limit) {
  const query = new URLSearchParams({ limit, cursor });
  for (const [name, value] of Object.entries(rest)) if (value) query.set(name, value);
  if (span) query.set("updated_after", String(now() - span));
  return query;
}
