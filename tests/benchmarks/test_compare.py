"""Comparing: who runs when, which flags count, what is written down. Peers are fake, edgert is not."""

import json
from pathlib import Path

import pytest

from benchmarks import compare, machine
from benchmarks.peers import IkLlama, LlamaCpp, Tools, answered
from benchmarks.programs import Case, Edgert, RunError, case, run
from edgert.measure import Phase, Trial


def tools(folder: Path) -> Tools:
    last = "llama-cli" if folder.name == "ik" else "llama-completion"
    return Tools(folder / "llama-bench", folder / "llama-batched-bench", folder / last)


def calls(folder: Path) -> list[str]:
    return (folder / "calls.txt").read_text().splitlines()


def test_names_of_tests() -> None:
    assert case("pp512") == Case("pp512", "tokens/s", Trial(phase=Phase.PREFILL, tokens=512))
    assert case("tg128@d4096x8") == case("tg128@d4096×8")
    assert case("tg128@d4096×8").trial == Trial(phase=Phase.DECODE, tokens=128, depth=4096, batch=8)
    assert case("ttft512").unit == "s"
    assert not case("load").more_is_better
    for name in compare.TESTS.split(","):
        case(name)
    with pytest.raises(ValueError, match="'pp' is not a test: pp512, tg128@d4096"):
        case("pp")


def test_llama_cpp_with_all_flags(peers: Path) -> None:
    program = LlamaCpp(tools(peers / "llama"))
    model = peers / "m.gguf"
    found = program.measure(case("tg8@d16"), model, 2, 60)
    assert found == {"repack=1 fa=1": 157, "repack=1 fa=0": 150, "repack=0 fa=1": 107, "repack=0 fa=0": 100}
    assert program.version == "7 (abc)"
    first = calls(peers / "llama")[0]
    assert first == f"llama-bench -m {model} -t 2 -r 1 -o json --repack 1 -fa on,off -p 0 -n 8 -d 16"
    assert program.measure(case("ttft314"), model, 1, 60)["repack=1 fa=1"] == 314 / 157
    assert "-p 314 -n 0 -d 0" in calls(peers / "llama")[-1]
    found = program.measure(case("tg4@d8x4"), model, 1, 60)
    assert found == {"repack=1 fa=1": 257, "repack=1 fa=0": 250, "repack=0 fa=1": 207, "repack=0 fa=0": 200}
    last = calls(peers / "llama")[-1]
    assert "--no-repack -fa off -npp 8 -ntg 4 -npl 4 -c 48 -b 2048 -ub 512 --output-format jsonl" in last
    assert set(program.measure(case("start"), model, 1, 60)) == {"repack=1", "repack=0"}
    memory = program.measure(case("memory"), model, 1, 60)
    assert set(memory) == {"repack=1 fa=1", "repack=0 fa=1"}
    assert all(value > 1 << 20 for value in memory.values())
    assert all(0 < value < 60 for value in program.measure(case("load"), model, 1, 60).values())


def test_ik_llama_with_all_flags(peers: Path) -> None:
    program = IkLlama(tools(peers / "ik"))
    model = peers / "m.gguf"
    found = program.measure(case("tg8@d16"), model, 1, 60)
    assert found == {"rtr=1 fa=1": 157, "rtr=1 fa=0": 150, "rtr=0 fa=1": 107, "rtr=0 fa=0": 100}
    assert "-rtr 1 -fmoe 1 -fa 1,0 -p 0 -n 0 -gp 16,8" in calls(peers / "ik")[0]
    assert program.measure(case("pp16"), model, 1, 60)["rtr=1 fa=1"] == 157
    assert "-d" not in calls(peers / "ik")[-1].split()
    assert program.measure(case("tg4@d8x4"), model, 1, 60)["rtr=1 fa=1"] == 257
    assert set(program.measure(case("start"), model, 1, 60)) == {"rtr=1", "rtr=0"}
    with pytest.raises(RunError, match="has no prompts at a depth"):
        program.measure(case("pp16@d8"), model, 1, 60)


def test_what_a_program_died_of(peers: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="broken ended with 3: error: no such architecture"):
        run([peers / "llama" / "broken"], 60)
    with pytest.raises(RunError, match="No such file"):
        run([tmp_path / "missing"], 60)
    with pytest.raises(RunError, match="sleep ended with -9 after 0 s"):
        run(["sleep", "30"], 0.2)
    with pytest.raises(RunError, match="no program was given for it \\(batched\\)"):
        LlamaCpp(Tools(bench=peers / "llama" / "llama-bench")).measure(case("tg4x2"), peers, 1, 60)


class Scripted:
    """A program whose values are given, and which notes when it is asked."""

    version = "1"

    def __init__(self, name: str, turns: list[str], values: dict[str, list[float]]) -> None:
        self.name = name
        self._turns = turns
        self._values = {flags: list(rounds) for flags, rounds in values.items()}

    def measure(self, case: Case, model: Path, threads: int, timeout: float) -> dict[str, float]:
        self._turns.append(self.name)
        if not self._values:
            raise RunError("it broke")
        return {flags: rounds.pop(0) for flags, rounds in self._values.items()}


@pytest.mark.parametrize(
    ("name", "flags", "ratios"), [("pp8", "b", [2.0, 0.5, 1.0]), ("start", "a", [1 / 10, 4 / 20, 4 / 60])]
)
def test_turns_best_flags_and_ratios(name: str, flags: str, ratios: list[float], tiny_path: Path, quick: None) -> None:
    turns: list[str] = []
    programs = [
        Scripted("edgert", turns, {"": [10.0, 20.0, 60.0]}),
        Scripted("llama.cpp", turns, {"a": [1.0, 4.0, 4.0], "b": [5.0, 40.0, 60.0]}),
        Scripted("ik_llama.cpp", turns, {}),
    ]
    entry = compare.compare(tiny_path, [case(name)], programs, 1, 3, 60)
    assert turns == ["edgert", "llama.cpp", "ik_llama.cpp", "edgert", "llama.cpp", "edgert", "llama.cpp"]
    (test,) = entry["tests"]
    assert test["programs"]["edgert"]["median"] == 20
    assert test["programs"]["llama.cpp"]["flags"] == flags
    assert test["programs"]["llama.cpp"]["variants"].keys() == {"a", "b"}
    assert test["programs"]["ik_llama.cpp"] == {"error": "it broke"}
    assert test["ratios"]["llama.cpp"]["runs"] == pytest.approx(ratios)
    assert test["ratios"]["llama.cpp"]["median"] == pytest.approx(sorted(ratios)[1])
    assert entry["limits"]["read_gb_per_second"] == 10


def test_from_the_command_line(tiny_path: Path, peers: Path, quick: None, capsys: pytest.CaptureFixture[str]) -> None:
    output = peers / "results.json"
    arguments = [str(tiny_path), "--threads", "1", "--rounds", "1", "--output", str(output)]
    llama, ik = peers / "llama" / "llama-bench", peers / "ik" / "llama-bench"
    tests = ["--tests", "pp8,tg4@d8,ttft8", "--llama-bench", str(llama), "--ik-llama-bench", str(ik)]
    compare.main([*arguments, *tests])
    printed = capsys.readouterr().out
    entries = json.loads(output.read_text())
    assert json.JSONDecoder().raw_decode(printed)[0] == entries
    (entry,) = entries
    assert entry["programs"].keys() == {"edgert", "llama.cpp", "ik_llama.cpp"}
    assert entry["model"]["bytes"] == tiny_path.stat().st_size
    assert entry["model"]["head_sha256"] == machine.model(tiny_path)["head_sha256"]
    assert entry["machine"]["cpus"] >= 1
    assert [test["test"] for test in entry["tests"]] == ["pp8", "tg4@d8", "ttft8"]
    for test in entry["tests"]:
        assert test["programs"]["edgert"]["median"] > 0, test
        assert test["programs"]["llama.cpp"]["flags"] == "repack=1 fa=1"
        assert test["ratios"].keys() == {"llama.cpp", "ik_llama.cpp"}
    assert "| 1 | pp8 | " in printed
    compare.main([*arguments, "--tests", "tg4"])
    assert len(json.loads(output.read_text())) == 2


def test_edgert_itself(tiny_path: Path) -> None:
    program = Edgert("abc+")
    assert program.version.endswith(" (abc+)")
    assert 0 < program.measure(case("start"), tiny_path, 1, 120)[""] < 120
    assert program.measure(case("tg3@d4x2"), tiny_path, 1, 120)[""] > 0
    with pytest.raises(RunError, match=r"python.* ended with 64: edgert: there is no file '/missing.gguf'"):
        program.measure(case("pp8"), Path("/missing.gguf"), 1, 120)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.gguf"], "there is no file missing.gguf"),
        (["TINY", "--tests", "pp8,what"], "'what' is not a test"),
        (["TINY", "--threads", "0"], "rounds and threads start from 1"),
        (["TINY", "--threads", "x"], "invalid literal"),
    ],
)
def test_wrong_arguments(
    arguments: list[str], message: str, tiny_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        compare.main([str(tiny_path) if word == "TINY" else word for word in arguments])
    assert message in capsys.readouterr().err


def test_the_head_identifies_a_model(tiny_path: Path, tmp_path: Path) -> None:
    data = bytearray(tiny_path.read_bytes())
    data[-1] ^= 255  # weights are not looked at
    copy = tmp_path / "copy.gguf"
    copy.write_bytes(data)
    assert machine.model(copy)["head_sha256"] == machine.model(tiny_path)["head_sha256"]
    data[data.index(b"hello")] ^= 1
    copy.write_bytes(data)
    assert machine.model(copy)["head_sha256"] != machine.model(tiny_path)["head_sha256"]


def test_a_lost_answer_is_asked_for_again(peers: Path) -> None:
    asked: list[str] = []

    def third(done: object) -> float | None:
        asked.append("")
        return 1.0 if len(asked) == 3 else None

    command = [peers / "llama" / "llama-cli"]
    assert answered(command, 60, third) == 1.0
    assert len(calls(peers / "llama")) == 3
    with pytest.raises(RunError, match="llama-cli printed no result"):
        answered(command, 60, lambda done: None)
