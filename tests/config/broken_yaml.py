"""Texts and bytes that are no YAML mapping, each with the line and the rule of its error."""

from __future__ import annotations

WHOLE = """\
name: x
task: {dataset: d, text: t, label: l}
student: {model: m}
strategies: {a: {alpha: 1.0, learning_rate: 1.0e-5}}
"""

# Each line repeats the one before ten times.
LAUGHS = "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 10)}]\n"
    for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)

NO_YAML: dict[str, tuple[str | bytes, int | None, str]] = {
    "empty": ("", 1, "expected a mapping of keys, not nothing"),
    "only a comment": ("# nothing\n", 1, "expected a mapping of keys, not nothing"),
    "only spaces": ("  \n\n  \n", 1, "expected a mapping of keys, not nothing"),
    "a list": ("- name: x\n- b\n", 1, "expected a mapping of keys, not a list"),
    "a word": ("hello\n", 1, "expected a mapping of keys, not 'hello'"),
    "a number": ("42", 1, "expected a mapping of keys, not 42"),
    "tabs": ("name: x\ntask:\n\tdataset: d\n", 3, "spaces, not tabs"),
    "tabs after spaces": ("name: x\ntask:\n  text: t\n\tdataset: d\n", 4, "spaces, not tabs"),
    "binary": (bytes(range(256)), 2, "is not UTF-8 text"),
    "a picture": (b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR", 1, "is not UTF-8 text"),
    "NUL": (WHOLE + "training: {epochs: \0}\n", 5, "special characters are not allowed"),
    "only NULs": ("\0" * 100, 1, "special characters are not allowed"),
    "UTF-16": (WHOLE.encode("utf-16"), 1, "is not UTF-8 text"),
    "UTF-16 without a mark": (WHOLE.encode("utf-16-le"), 1, "special characters are not allowed"),
    "Latin-1": ("name: x\n# été\n".encode("latin-1"), 2, "is not UTF-8 text"),
    "two documents": (WHOLE + "---\n" + WHOLE, 5, "single document"),
    "an open bracket": (WHOLE + "training: {epochs: 3\n", 6, "is no YAML"),
    "an open quote": (WHOLE + 'training: "\n', 6, "is no YAML"),
    "wrong indentation": ("name: x\ntask:\n    text: t\n  label: l\n", 4, "is no YAML"),
    "an unknown anchor": (WHOLE + "training: *nobody\n", 5, "undefined alias"),
    "a tag": (WHOLE + "training: !secret 3\n", 5, "tag"),
    "a Python tag": (WHOLE + "training: !!python/name:os.system x\n", 5, "tag"),
    "a number that is none": (WHOLE + "seed: !!int abc\n", 5, "can't be read as a value"),
    "a mapping as a key": (WHOLE + "? {a: b}\n: c\n", 5, "a key must be a word"),
    "keys twice": (WHOLE + "name: y\n", 5, "key 'name' is there twice"),
    "merged keys": (WHOLE + "<<: {embedded: x}\n", 5, "unknown key '<<'"),
    "laughs": (LAUGHS, 1, "holds more than 50,000 values"),
    "an anchor in itself": (WHOLE + "training: &t {epochs: *t}\n", 5, "nested more than"),
    "deep lists": (WHOLE + "training: " + "[" * 60 + "]" * 60 + "\n", 5, "nested more than"),
    "deep values": (
        WHOLE.replace("alpha: 1.0", "alpha: " + "{any_of: [0.1, " * 18 + "0.5" + "]}" * 18),
        4,
        "nested more than",
    ),
    "very deep blocks": ("\n".join(" " * i + "a:" for i in range(1000)), None, "nested more than"),
    "huge": (WHOLE + "#" * 1_100_000, None, "larger than 1 MB"),
}
