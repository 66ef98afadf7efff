"""Stands in for a peer's programs: prints what they would, from rates that depend on the flags alone.

llama-bench prints JSON, llama-batched-bench a line of JSON (or ik's table on stderr), the others a token. Every call is
written down beside the program.
"""

import json
import sys
from pathlib import Path

program, words = Path(sys.argv[0]), sys.argv[1:]


def value(*names: str, default: str = "0") -> str:
    found = [words[i + 1] for i, word in enumerate(words[:-1]) if word in names]
    return found[-1] if found else default


with (program.parent / "calls.txt").open("a") as calls:
    calls.write(" ".join([program.name, *words]) + "\n")
ik = program.parent.name == "ik"
if program.name == "llama-bench":
    repacked = value("--repack", "-rtr") == "1"
    items = []
    for attention in value("-fa").split(","):
        flash = attention in ("1", "on")
        rate = 100.0 + 50 * repacked + (7 if flash else 0)
        items.append({"build_number": 7, "build_commit": "abc", "flash_attn": flash, "avg_ts": rate})
    print(json.dumps(items))
elif program.name == "llama-batched-bench":
    rate = 200.0 + 50 * ("-rtr" in words or "--repack" in words) + 7 * (value("-fa") == "on")
    if ik:
        sys.stderr.write(
            f"|    PP |\n|------|\n|  8 |  4 |  4 |  48 |  0.1 |  99.0 |  0.2 |  {rate} |  0.3 |  111.0 |\n"
        )
    else:
        print(json.dumps({"pp": 8, "speed_pp": 99.0, "speed_tg": rate}))
elif program.name == "broken":
    sys.stderr.write("loading\nerror: no such architecture\ngoodbye\n")
    sys.exit(3)
else:
    print("a token")
