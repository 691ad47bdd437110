"""Writes yaml11.json: what PyYAML's safe_load makes of each document below, as JSON.

Run with a Python that has PyYAML: python make_yaml11.py > yaml11.json
"""
import base64
import datetime
import json
import math

import yaml

SCALARS = """
~ null Null NULL nULL none None yes Yes YES yEs no No NO true True TRUE tRUE false False FALSE on On ON oN off Off OFF
y Y n N t f 0 00 -0 +0 1 -1 +1 12 007 017 -017 +017 08 09 018 0_7 0o17 0O17 1_000 1__0 _1 1_ -_1 +_1 0_ 0b 0b0 0b101
-0b11 +0b1 0b1_1 0b_1 0b2 0B1 0x 0x1F -0x1f +0xAb 0x_1 0xG 0X1 1: 12:30 1:30:00 -1:30 +1:30 01:30 0:30 1:60 1:5 1:05
1_0:30 190:20:30 190:20:30.15 1:30. 1:30.5 -1:30.5 01:30.5 0:0.5 1:60.5 1:2:3:4 9223372036854775807
9223372036854775808 -9223372036854775808 -9223372036854775809 18446744073709551615 18446744073709551616
99999999999999999999999999 340282366920938463463374607431768211456 0xffffffffffffffffffffffffffffffffffffff 1. 1.0 -1.0 +1.0 .5
-.5 +.5 5. 0. .0 0.0 -0.0 1.e+3 1.0e3 1.0e+3 1.0E-3 1e3 1e+3 1E5 1_000.5 1.5_0 1._5 ._5 .5_ . .. ... ._ -. .e+1 1.5e 1.5e+
1.5e+_1 1.5e+1_0 1.0e+999 -1.0e+999 1.0e-999 685.230_15e+03 1.2.3 1.2:3 .inf .Inf .INF .iNF -.inf +.inf -.Inf .nan .NaN
.NAN .Nan -.nan +.nan inf nan Infinity 3.14 6.02e+23 0.1 123456789.123456789 2001-12-14 2001-1-2 2001-12-4 0001-01-01
9999-12-31 2000-02-29 2001-12-14T21:59:43Z 2001-12-14t21:59:43.10-05:00 2001-12-14T21:59:43.1+9 2001-12-14T1:59:43
2001-1-1T01:02:03 2001-12-14T21:59:43.1234567Z 2001-12-14T21:59:43. 2001-12-14T21:59:43+05:30 2001-12-14T21:59:43-00:00
2001-12-14T21:59 2001-12-14T21:59:43z 20011214 2001-12-141 2001-12-14T21:59:43+5:3 2001-12-14T21:59:43-0530 - -- --- a-b
+ a:b a#b a,b :x :: a= == =a =~ < <<< <<a ~a a~ é 日本 😀 \\ \\n a\\b $ $node.a.output $$x 'q' "q" 'a''b' "a\\tb" '1' "1" "yes" '~'
"" '' "=" '<<' "2001-12-14" 1a 0xg1 1-2 1+2 12e03 -12 --1 +-1 1,000 1/2 v1.0 1.0.0 127.0.0.1 12:30:45.5 12:3 12:300 60:00
24:00:00 10:59 1:1:1 -190:20:30 0b1:1 0x1:1 017:30 null: *. [] {} [1] [~] [,] {a} {a:1} {"a":1} {a: 1} ! !a %a @a `a &a *a |
> ? ?a -a #a a# !!str !!str,1 !!null !!int !!float !!bool !!seq !!map !!set
""".split()

DOCUMENTS = [f"a: {text}" for text in SCALARS] + [f"{text}: 1" for text in """
    1 1.5 yes ~ 2001-12-14 "1" 'yes' "" 0x10 12:30 1e3 1.0e+16 .inf .nan -.inf = "=" "<<" é -0.0 1.0 null a.b -1
    99999999999999999999""".split()] + [
    "a: !!str 1", "a: !!str yes", "a: !!str", "a: !!str ~", "a: !!int '1_0'", "a: !!int x", "a: !!int 1.5", "a: !!int 0b11",
    "a: !!int 12:30", "a: !!int ''", "a: !!int 08", "a: !!int -0x1F", "a: !!int '+5'", "a: !!float 1", "a: !!float x",
    "a: !!float 1e3", "a: !!float 12:30", "a: !!float ''", "a: !!float -.inf", "a: !!float '.5'", "a: !!bool yes",
    "a: !!bool TrUe", "a: !!bool y", "a: !!bool ''", "a: !!null x", "a: !!null ''", "a: !!timestamp 2020-01-01",
    "a: !!timestamp '2020-01-01 1:02:03'", "a: !!timestamp x", "a: !!timestamp ''", "a: !!binary aGk=", "a: !!binary ///+",
    "a: !!binary |\n  aGVs\n  bG8=\n", "a: !!binary ''", "a: !!binary aGk", "a: !!seq [1, 2]", "a: !!seq {a: 1}", "a: !!seq x",
    "a: !!map {b: 1}", "a: !!map [1]", "a: !!map x", "a: !!set {x}", "a: !!set {}", "a: !!set [x]", "a: !!set\n  ? x\n",
    "a: !!omap [b: 1, a: 2]", "a: !!omap [1]", "a: !!omap {a: 1}", "a: !!pairs [a: 1, a: 2]", "a: !!pairs [a: 1, 1: [2]]",
    "a: !!omap []", "a: !!str [1]", "a: !!int [1]", "a: ! 3", "a: ! '3'", "a: !!value x", "a: !!merge x", "a: !local 1",
    "a: !!python/none x", "a: !!python/object/apply:os.system ['x']", "!!python/name:os.system a: 1", "a: !<tag:yaml.org,2002:str> 1",
    "a: !<tag:yaml.org,2002:int> '7'", "a: !<x> 1", "%TAG ! tag:yaml.org,2002:\n---\na: !str 1", "%TAG !e! tag:yaml.org,2002:\n---\na: !e!int '1'",
    "a: !e!int 1", "!!map {a: 1}", "!!str a: !!int '1'", "a: {b: 1, b: 2}", "a: 1\nb: 2\na: 3", "1: a\n1.0: b\ntrue: c\nyes: d",
    "0: a\nfalse: b\n-0.0: c", "'1': a\n1: b", "~: a\nnull: b", "<<: {a: 1, b: 2}\nb: 3", "b: 3\n<<: {a: 1, b: 2}",
    "b: 3\n<<: [{a: 1, b: 2}, {a: 5, c: 6}]", "<<: []\na: 1", "<<: {}\na: 1", "<<: 3", "<<: [3]", "<<: ~", "<<: [[{a: 1}]]",
    "'<<': {a: 1}", '"<<": 1', "!!str <<: 1", "x: &x {a: 1, b: 2}\ny:\n  <<: *x\n  b: 3", "x: &x {a: 1}\ny: &y {<<: *x, b: 2}\nz:\n  <<: [*y, {c: 3}]",
    "x: &x {a: 1}\nz: &z {a: 2, d: 4}\ny:\n  <<: *x\n  <<: *z\n  e: 5", "<<: {<<: {a: 1}, b: 2}\nc: 3", "a: <<", "- <<", "a: =", "- =", "a: {=: 3, b: 4}",
    "a: &x 1\nb: *x", "a: &x [1, {b: c}]\nd: *x\ne: [*x, *x]", "&a a: 1\nb: *a", "a: &x\nb: *x", "a: &x 1\nb: &x 2\nc: *x", "a: *x", "a: &x {b: *x}",
    "a: &x [*x]", "? &k b\n: 1\nc: *k", "a: &x 1\n*x : 2", "a: b", " a: 1\n b: 2", "a:\n  b:\n    c: 1", "a:\n- 1\n- 2", "a:\n  - 1\n  - - 2\n    - 3",
    "a:\n  - b: 1\n    c: 2\n  - d", "a: [a, b,]", "a: [a,\n b]", "a: [1\n, 2]", "a: {a, b}", "a: {a: , b: }", "a: [a: 1]", "a: [a: 1, b]", "a: {? b : c}",
    "a: {}", "a: []", "a: [[], {}]", "? a\n: b\n? c", "? a", "? [1]\n: 2", "? {a: 1}\n: 2", "[1]: 2", "{}: 1", "[]: 1", "a: [{[1]: 2}]", "a:", "a: ",
    "a: #x", "a: b#c", "a: b #c", "# only a comment", "", "---", "--- 1", "---\na: 1", "---\na: 1\n...", "---\na: 1\n...\n# end", "--- # x\na: 1", "a: 1\n---\nb: 2",
    "---\n---\n", "a: 1\n---\n", "...", "%YAML 1.1\n---\na: 1", "%YAML 1.2\n---\na: 1", "%FOO x\n---\na: 1", "- 1\n- yes\n- 017", "- a\n- - b\n", "just text", "'quoted'",
    "a: |\n  x\n  y\n", "a: |-\n  x\n  y\n", "a: |+\n  x\n\n", "a: |2\n    x\n", "a: >\n  x\n  y\n\n  z\n", "a: >-\n  x\n   y\n  z\n", "a: >+\n  x\n\n", "a: |\n\n  x\n", "a: |\n",
    "a: |\nb: 1", "a: |\n  # no comment\n", "a: | # comment\n  x\n", "a: |\n  017\n", "a: >-\n  yes\n", "a: x\n  y\n  z", "a: x\n\n  y", "a: 1\n  2", "a: \"x\n  y\n\n  z\"",
    "a: 'x\n  y'", "a: \"\\x41\\u00e9\\U0001F600\"", "a: \"\\a\\b\\e\\f\\n\\r\\t\\v\\0\\N\\_\\L\\P\\ \\\"\\\\\"", "a: \"\\/\"", "a: \"\\q\"", "a: \"x\\\n  y\"", "a: '\\n'", "a: 'b' c",
    "a: \"b\" c", "a: 'b", "a: [", "a: {", "a: ]", "a: }", "a: [1}", "a: b: c", "a:\n b\n c: d", "a: 1\n b: 2", "a:\n  - 1\n - 2", "- 1\n-2", "a: -", "a: - b", "a: ? b", "a: b:",
    "a: 'b': c", "a : b", "a :b", "\"a\": 1", "\"a\" : 1", "'a': 1", "a:\r\n  b: 1\r\n", "a: 1\r\nb: yes\r\n", "a: 1\rb: 2", "a: x\ty", "a: \"x\ty\"", "a: 1 \t", "a: x\u00a0y",
    "a: \u00e9", "\ufeffa: 1", "a: \U0001f600", "a: x\x00", "a: x\x01", "a: \"\x07\"", "a: x\x7f", "a: \x80", "a: \ufffe", "\ta: 1", "a:\n\tb: 1",
    "a: http://x.y/z?q=1#f", "a: C:\\x", "a: 10 apples", "a: 1 2", "a: 2001-12-14 21:59:43", "a: 2001-12-14 21:59:43.10 -5", "a: 2001-12-14   1:59:43 Z",
    "a: 2001-12-14 21:59:43 +09:00", "a: 2020-02-30", "a: 2020-13-01", "a: 0000-01-01", "a: 2020-01-01 24:00:00", "a: 2020-01-01 00:60:00", "a: 2020-01-01 00:00:00 +24:00",
    "a: 2020-01-01 00:00:00 -23:59", "a: 1900-02-29", "a: 0x_", "a: 0b_", "version: 1\nflow:\n  graph: |\n    a >> b\n    >> c  # end\n  defaults:\n    on: off\n    port: 0o17\n",
    "flow: {graph: a, defaults: {when: 2020-01-01, at: 12:30, mode: 0644, big: 1_000_000}}", "a: [yes, no, 'yes', 1e3, 1.0e+3, 12:30, 017, ~, , x]",
    "a: {b: [1, {c: [2, {d: ~}]}]}", "a:\n  ? b\n  : - c\n    - d\n", "a: &x !!str 1\nb: *x", "a: !!str &x 1\nb: *x", "!!omap\n- a: 1\n- b: 2\n", "a: [1, 2,, 3]", "{a: 1, b: 2}",
    "{a: 1}\n", "[a, b]", "a: {b: 1}}", "a: \"\\ud83d\"", "%TAG ! x\n%TAG ! y\n---\na", "a: 1 # c\n# d\nb: 2", "a: [x # c\n, y]", "a: {x: y # c\n}", "a: ['b', \"c\"]", "a: \"b\"\"c\"",
]


class NotJson(Exception):
    pass


def plain(value):
    if isinstance(value, dict):
        return {key(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, set):
        return [plain(item) for item in sorted(value, key=str)]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, (datetime.date, datetime.datetime)):
        return value.isoformat()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, str):
        value.encode()
    if isinstance(value, int) and not isinstance(value, bool) and not -(2**63) <= value < 2**64:
        return float(value)
    return value


def key(value):
    if isinstance(value, (datetime.date, datetime.datetime)):
        return value.isoformat()
    return next(iter(json.loads(json.dumps({value: 0}))))


def outcome(text):
    try:
        return {"yaml": text, "json": plain(yaml.safe_load(text))}
    except Exception:
        return {"yaml": text, "refused": True}
    except RecursionError:
        return {"yaml": text, "refused": True}


print("[")
print(",\n".join(json.dumps(outcome(text)) for text in dict.fromkeys(DOCUMENTS)))
print("]")
