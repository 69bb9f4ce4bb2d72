"""Prints a libFuzzer dictionary: every name that our messages can carry, as a CBOR text string, so that the fuzzer gets
past the first map key. Names are taken from the sources: fields, and variants as serde renames them."""

import pathlib
import re

sources = pathlib.Path(__file__).resolve().parent.parent / "crates" / "daitn-messages" / "src"
names = set()
for source in sources.rglob("*.rs"):
    text = source.read_text()
    names |= set(re.findall(r"^\s*(?:pub )?([a-z][a-z0-9_]*): ", text, re.M))
    for variant in re.findall(r"^    ([A-Z][A-Za-z0-9]*)(?:[ ({,]|$)", text, re.M):
        words = re.sub(r"(?<!^)(?=[A-Z])", " ", variant).lower().split()
        names |= {variant, "_".join(words), "-".join(words)}
for name in sorted(name for name in names if 1 < len(name) < 24):
    print(f'"\\x{0x60 + len(name):02x}{name}"')
