"""The object store as nats-py uses it, and hands on its stream: one command per call."""

import asyncio
import json
import sys

import nats
from nats.js.api import ObjectMeta, ObjectStoreConfig

BUCKET = "pyoco_wheels"
STREAM = f"OBJ_{BUCKET}"


async def store(js):
    try:
        return await js.object_store(BUCKET)
    except nats.js.errors.NotFoundError:
        return await js.create_object_store(BUCKET, ObjectStoreConfig(max_bytes=64 * 1024 * 1024))


async def put(js, name):
    meta = ObjectMeta(name=name, headers={"x-pyoco-wheel-tags": "cpu,linux"})
    await (await store(js)).put(name, sys.stdin.buffer.read(), meta)


async def get(js, name):
    sys.stdout.buffer.write((await (await store(js)).get(name)).data)


async def delete(js, name):
    await (await store(js)).delete(name)


async def infos(js):
    listed = await (await store(js)).list()
    print(json.dumps([info.as_dict() for info in listed], default=str))


async def config(js):
    await store(js)
    info = await js._api_request(f"$JS.API.STREAM.INFO.{STREAM}")
    print(json.dumps(info["config"]))


async def subjects(js):
    request = json.dumps({"subjects_filter": ">"}).encode()
    info = await js._api_request(f"$JS.API.STREAM.INFO.{STREAM}", request)
    print(json.dumps(info["state"].get("subjects", {})))


async def add(js, subject, size):
    await js.publish(f"$O.{BUCKET}.{subject}", b"x" * int(size))


async def drop(js, subject):
    """Removes the newest message of a subject."""
    message = await js.get_last_msg(STREAM, f"$O.{BUCKET}.{subject}")
    await js.delete_msg(STREAM, message.seq)


async def alter(js, subject):
    """Puts other bytes, as many, in the place of the newest message of a subject."""
    message = await js.get_last_msg(STREAM, f"$O.{BUCKET}.{subject}")
    await js.delete_msg(STREAM, message.seq)
    await js.publish(f"$O.{BUCKET}.{subject}", bytes(byte ^ 1 for byte in message.data))


async def raw(js, subject):
    message = await js.get_last_msg(STREAM, f"$O.{BUCKET}.{subject}")
    print(json.dumps({"headers": dict(message.headers or {}), "data": message.data.decode()}))


async def recreate(js):
    await js.delete_stream(STREAM)
    await store(js)


async def fill(js):
    """Stores bytes that nobody names until there is room for none."""
    for size in (10_000, 1_000, 100, 10, 1):
        try:
            while True:
                await add(js, "C.filling", size)
        except nats.js.errors.APIError:
            pass


async def leader_only(js):
    """Turns direct gets off."""
    config = (await js._api_request(f"$JS.API.STREAM.INFO.{STREAM}"))["config"]
    config["allow_direct"] = False
    await js._api_request(f"$JS.API.STREAM.UPDATE.{STREAM}", json.dumps(config).encode())


async def main():
    url, command, *arguments = sys.argv[1:]
    client = await nats.connect(url)
    await globals()[command](client.jetstream(), *arguments)
    await client.drain()


asyncio.run(main())
