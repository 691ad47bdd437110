// Numbers and times as the visitor writes them.

import { language, t } from "./i18n.js";

/** The visitor's own locale where it is of the page's language (en-GB), else the page's language. */
function locale() {
  const own = navigator.languages.find((one) => one.split("-")[0] === language());
  return own ?? language();
}

export function number(value) {
  return new Intl.NumberFormat(locale(), { maximumFractionDigits: 1 }).format(value);
}

/** Whether it is a time that can be written as a date; anybody may have stored it. */
export function isTime(seconds) {
  return typeof seconds === "number" && Math.abs(seconds) <= 8.64e12;
}

/** Date and time, to the second. */
export function moment(seconds) {
  if (!isTime(seconds)) return "–";
  const style = { dateStyle: "medium", timeStyle: "medium" };
  return new Intl.DateTimeFormat(locale(), style).format(seconds * 1000);
}

/** Hours and minutes. */
export function clock(seconds) {
  return new Intl.DateTimeFormat(locale(), { timeStyle: "short" }).format(seconds * 1000);
}

/** A span of time in at most two units. */
export function span(seconds) {
  const value = Math.max(0, seconds);
  if (value > 0 && value < 0.0005) return t("span.ms", { n: "<1" });
  if (value < 0.9995) return t("span.ms", { n: number(Math.round(value * 1000)) });
  if (value < 60) return t("span.s", { n: number(value < 10 ? Math.round(value * 10) / 10 : Math.round(value)) });
  const whole = Math.round(value);
  if (whole < 3600) return t("span.min", { m: Math.floor(whole / 60), s: whole % 60 });
  if (whole < 86400) return t("span.h", { h: Math.floor(whole / 3600), m: Math.floor((whole % 3600) / 60) });
  return t("span.d", { d: Math.floor(whole / 86400), h: Math.floor((whole % 86400) / 3600) });
}

/** “3 minutes ago”. */
export function ago(seconds) {
  const passed = now() - seconds;
  const words = new Intl.RelativeTimeFormat(language(), { numeric: "auto", style: "short" });
  for (const [unit, length] of [
    ["day", 86400],
    ["hour", 3600],
    ["minute", 60],
  ]) {
    if (Math.abs(passed) >= length) return words.format(-Math.trunc(passed / length), unit);
  }
  return words.format(-Math.max(0, Math.trunc(passed)), "second");
}

/** Unix seconds. */
export function now() {
  return Date.now() / 1000;
}

/** A size in bytes. */
export function size(bytes) {
  if (bytes < 1024) return `${number(bytes)} B`;
  return bytes < 1024 * 1024 ? `${number(bytes / 1024)} KiB` : `${number(bytes / 1024 / 1024)} MiB`;
}
