"""The commands as a user types them: CliRunner for what they print, real processes for start-up, pipes and signals."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from edgert_models.errors import EdgertError, FileFormatError, HubError

from tests.edgert.cli.support import ENVIRONMENT, QUICK, process, run
from tests.edgert.tiny_gguf import tokenizer_entries, write_tiny


def test_help_names_every_command_and_imports_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['edgert', '--help']\n"
        "from edgert.cli.main import run\n"
        "try: run()\n"
        "except SystemExit: pass\n"
        "heavy = {'numpy', 'numba', 'llvmlite', 'tokenizers', 'fastapi', 'uvicorn', 'prompt_toolkit', 'jinja2'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=ENVIRONMENT, check=True)
    names = "chat generate serve convert evaluate verify inspect tokenize bench warmup doctor"
    for name in names.split():
        assert f" {name} " in result.stdout
    assert result.stdout.splitlines()[-1] == "[]"


def test_generate_imports_what_it_runs(tiny_path: Path) -> None:
    """A start is made of imports: no other command, family, way in or library than it needs."""
    code = (
        "import sys\n"
        f"sys.argv = ['edgert', 'generate', {str(tiny_path)!r}, 'hello', '-n', '1', '--backend', 'cpu']\n"
        "from edgert.cli.main import run\n"
        "try: run()\n"
        "except SystemExit: pass\n"
        "print()\n"
        "print(*sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=ENVIRONMENT, check=True)
    modules = result.stdout.splitlines()[-1].split()
    families = [name for name in modules if name.startswith("edgert_models.architectures.")]
    assert families == ["edgert_models.architectures.qwen3moe"]
    commands = {"bench", "chat", "convert", "doctor", "library", "serve"}
    assert [name for name in modules if name.startswith("edgert.cli.") and name.split(".")[2] in commands] == []
    packages = {name.partition(".")[0] for name in modules}
    assert (
        packages & {"rich", "numba", "jinja2", "llguidance", "pydantic", "fastapi", "asyncio", "huggingface_hub"}
        == set()
    )
    assert len(modules) < 620


def test_version() -> None:
    assert run("--version").stdout.startswith("edgert 0.")


def test_generate(tiny_path: Path) -> None:
    arguments = ("generate", str(tiny_path), "hello world", "-n", "8", "--temperature", "0", *QUICK)
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    assert run(*arguments, "--json").exit_code == 0
    completion = json.loads(run(*arguments, "--json").stdout)
    assert completion["usage"]["completion_tokens"] == len(completion["token_ids"]) <= 8
    assert result.stdout == completion["text"] + "\n"
    assert run("generate", str(tiny_path), *arguments[3:], stdin="hello world").stdout == result.stdout
    assert run("generate", str(tiny_path), "-", *arguments[3:], stdin="hello world").stdout == result.stdout


def test_same_seed_same_text(tiny_path: Path) -> None:
    arguments = ("generate", str(tiny_path), "hello", "-n", "12", "--seed", "7", "--temperature", "1", *QUICK)
    assert run(*arguments).stdout == run(*arguments).stdout
    assert run(*arguments).stdout != run(*arguments[:-5], "8", *arguments[-4:]).stdout


def test_chat_answers_stdin_once(tiny_path: Path) -> None:
    arguments = ("chat", str(tiny_path), "-n", "8", "--temperature", "0", *QUICK)
    result = run(*arguments, stdin="hello\n")
    assert result.exit_code == 0, result.output
    completion = json.loads(run(*arguments, "--json", stdin="hello\n").stdout)
    assert result.stdout == completion["text"] + "\n"


def test_another_chat_template(tiny_path: Path, tmp_path: Path) -> None:
    template = tmp_path / "plain.jinja"
    template.write_text("{% for m in messages %}{{ m['content'] }}{% endfor %}")
    arguments = ("-n", "8", "--temperature", "0", "--json", *QUICK)
    plain = json.loads(run("generate", str(tiny_path), "hello", *arguments).stdout)
    given = json.loads(run("chat", str(tiny_path), "--chat-template", str(template), *arguments, stdin="hello").stdout)
    assert given["usage"]["prompt_tokens"] == plain["usage"]["prompt_tokens"] - 1  # the template adds no begin token
    missing = process("chat", str(tiny_path), "--chat-template", "none.jinja", *QUICK, stdin="x")
    assert missing.returncode == 64
    assert "chat template none.jinja: " in missing.stderr


def test_tokenize(tiny_path: Path) -> None:
    result = json.loads(run("tokenize", str(tiny_path), "hello wor", "--json").stdout)
    assert result["pieces"][1:] == ["hello", " w", "or"]
    assert len(run("tokenize", str(tiny_path), "hello", "--no-special").stdout.splitlines()) == 2


def test_inspect(tiny_path: Path) -> None:
    result = json.loads(run("inspect", str(tiny_path), "--json").stdout)
    assert result["metadata"]["general.architecture"] == "qwen3moe"
    assert result["runs"] == "yes"
    assert {tensor["name"] for tensor in result["tensors"]} >= {"token_embd.weight", "blk.0.ffn_gate_exps.weight"}
    assert "yes" in run("inspect", "demo").stdout
    shown = run("inspect", str(tiny_path), "--tensors").stdout
    assert "blk.1.attn_k.weight" in shown
    assert "runs here: yes" in shown
    assert result["text"] == {
        "tokenizer": "byte-level BPE, pre-tokenizer gpt-2, 265 tokens, rebuilt from tokenizer.ggml",
        "chat templates": "default",
        "tool calls": "llama",
        "reasoning": "none",
    }
    assert "chat templates  default" in shown


def test_inspect_tells_what_text_cannot_be_used(tmp_path: Path) -> None:
    entries = {**tokenizer_entries(), "tokenizer.ggml.pre": "odd"}
    path = write_tiny(tmp_path / "odd.gguf", tokenizer=entries)
    text = json.loads(run("inspect", str(path), "--json").stdout)["text"]
    assert text["tokenizer"].startswith("cannot be used: the pre-tokenizer 'odd' is unknown")


def test_convert_prints_a_summary(tiny_path: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.gguf"
    result = process("convert", str(tiny_path), str(output), "--type", "q8_0")
    assert result.returncode == 0, result.stderr
    assert "Q8_0" in result.stdout
    assert "bits per weight" in result.stdout
    assert output.is_file()
    report = json.loads(process("convert", str(tiny_path), str(output), "--type", "f16", "--json").stdout)
    assert report["bytes"] == output.stat().st_size
    assert {entry["type"] for entry in report["types"]} == {"F16", "F32"}


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("generate", "missing.gguf", "x"), 64, "there is no file 'missing.gguf'"),
        (
            ("generate", "TINY", "x", "--backend", "tpu"),
            64,
            "unknown backend 'tpu'; there are: auto, cpu, cuda, mlx, reference",
        ),
        (("generate", "TINY", "x", "--memory", "lots"), 64, "'lots' is not an amount of memory"),
        (("generate", "TINY", "x" * 300, *QUICK), 64, "the context holds 128"),
        (("chat", "TINY", *QUICK), 64, "the message on stdin is empty"),
        (("inspect", "BROKEN"), 65, "broken.gguf at byte"),
        (("convert", "TINY", "out.gguf", "--type", "q9"), 69, "type 'q9' is not supported; supported: f32"),
        (("convert", "missing", "out.gguf"), 64, "missing"),
        (
            ("convert", "TINY", "out.gguf", "--type", "native", "--calibration", "-"),
            64,
            "native keeps what the source has",
        ),
        (("serve", "TINY", "--host", "0.0.0.0"), 64, "can be reached from other machines: give --api-key"),
    ],
)
def test_errors_are_one_line(
    arguments: tuple[str, ...], code: int, message: str, tiny_path: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(tiny_path.read_bytes()[:200])
    names = {"TINY": str(tiny_path), "BROKEN": str(broken)}
    given = [names.get(argument, argument) for argument in arguments]
    command = [sys.executable, "-m", "edgert", *given]
    result = subprocess.run(
        command, input="", capture_output=True, text=True, env=ENVIRONMENT, cwd=tmp_path, timeout=60, check=False
    )
    assert result.returncode == code, result.stderr
    assert message in result.stderr
    assert result.stderr.startswith("edgert: ")
    assert result.stderr.count("\n") == 1
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("inspect", "MODEL"),
        ("tokenize", "MODEL", "x"),
        ("generate", "MODEL", "x"),
        ("chat", "MODEL"),
        ("serve", "MODEL"),
        ("bench", "MODEL"),
        ("evaluate", "MODEL", "TEXT"),
        ("calibrate", "MODEL", "TEXT"),
        ("convert", "MODEL", "OUTPUT", "--type", "q8_0"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_no_command_opens_a_broken_file(arguments: tuple[str, ...], tiny_path: Path, tmp_path: Path) -> None:
    broken, text = tmp_path / "broken.gguf", tmp_path / "text"
    broken.write_bytes(tiny_path.read_bytes()[:-100])
    text.write_text("hello " * 100)
    names = {"MODEL": str(broken), "TEXT": str(text), "OUTPUT": str(tmp_path / "output")}
    error = run(*(names.get(argument, argument) for argument in arguments)).exception
    assert isinstance(error, FileFormatError)
    assert error.exit_code == 65
    assert str(error).startswith(f"{broken} at byte ")
    assert "is the download complete" in str(error)


@pytest.mark.skipif(sys.platform != "linux", reason="network namespaces are Linux's")
def test_without_a_network(tiny_path: Path) -> None:
    """Not even the loopback address is there. What is on the machine runs; what is not says why."""
    alone = ["unshare", "--map-root-user", "--net", sys.executable, "-m", "edgert"]

    def typed(*arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {**ENVIRONMENT, "HF_ENDPOINT": "http://127.0.0.1:9"}
        return subprocess.run(
            [*alone, *arguments], capture_output=True, text=True, env=environment, timeout=120, check=False
        )

    done = typed("generate", str(tiny_path), "hello", "--max-tokens", "4", "--json", *QUICK)
    if "unshare" in done.stderr:
        pytest.skip("user namespaces are not allowed here")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["usage"]["completion_tokens"] == 4
    fetched = typed("pull", "org/model")
    assert fetched.returncode == HubError.exit_code
    assert fetched.stderr.startswith("edgert: ")


@pytest.mark.parametrize(
    ("streams", "code", "error"),
    [
        ("</dev/null >/dev/full", 74, "edgert: the output: No space left on device\n"),
        ("<&-", 0, ""),
        ("</dev/null >&-", 0, ""),
    ],
)
def test_streams_that_are_full_or_closed(streams: str, code: int, error: str, tiny_path: Path) -> None:
    script = f'exec "{sys.executable}" -m edgert tokenize "{tiny_path}" {streams}'
    result = subprocess.run(
        ["sh", "-c", script], capture_output=True, text=True, env=ENVIRONMENT, timeout=60, check=False
    )
    assert (result.returncode, result.stderr) == (code, error)


def test_characters_that_the_terminal_cannot_show(tiny_path: Path) -> None:
    for options in ((), ("--json",)):
        result = process("tokenize", str(tiny_path), "\xe4", *options, PYTHONIOENCODING="ascii")
        assert result.returncode == 0
        assert ("'?'" if not options else r'"\ufffd"') in result.stdout


def test_usage_errors_exit_with_2() -> None:
    assert process("generate").returncode == 2
    assert process("chat", "--temperature", "-1").returncode == 2


def test_every_error_has_an_exit_code() -> None:
    waiting = [EdgertError]
    while waiting:
        error = waiting.pop()
        assert 0 < error.exit_code < 256
        waiting.extend(error.__subclasses__())


def test_closed_pipe_is_quiet(tiny_path: Path) -> None:
    command = [sys.executable, "-m", "edgert", "inspect", str(tiny_path), "--tensors"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**ENVIRONMENT, "PYTHONUNBUFFERED": "1"}
    ) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        child.stdout.close()
        assert b"Traceback" not in child.stderr.read()
        assert child.wait(30) in (0, 1)


def test_interrupt_ends_generation_at_once(tiny_path: Path) -> None:
    arguments = ["generate", str(tiny_path), "hello", "-n", "200", "--temperature", "0"]
    command = [sys.executable, "-u", "-m", "edgert", *arguments, "--backend", "reference"]
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)  # the child inherits it; background jobs ignore interrupts
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT)
    signal.signal(signal.SIGINT, before)
    with child:
        assert child.stdout is not None
        assert child.stdout.read(1)
        child.send_signal(signal.SIGINT)
        _, err = child.communicate(timeout=30)
        assert child.returncode == 130
        assert b"Traceback" not in err
