"""Options from flags, the environment and a file, in this order."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from edgert_models.errors import RequestError

from edgert.cli import configuration
from tests.edgert.cli.support import QUICK, ROOT, run


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "edgert"
    folder.mkdir()
    monkeypatch.delenv("EDGERT_CONFIG", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    return folder / "config.toml"


def test_a_flag_beats_the_environment_which_beats_the_file(
    file: Path, tiny_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def tokens(*flags: str) -> list[int]:
        done = run("generate", str(tiny_path), "hello", "--max-tokens", "8", "--json", *QUICK, *flags)
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)["token_ids"]  # type: ignore[no-any-return]

    by_seed = [tokens("--temperature", "2", "--seed", str(seed)) for seed in (1, 2, 3)]
    assert len({str(each) for each in by_seed}) == 3
    file.write_text("seed = 3\n[generate]\ntemperature = 2.0\n")
    assert tokens() == by_seed[2]
    monkeypatch.setenv("EDGERT_SEED", "2")
    assert tokens() == by_seed[1]
    assert tokens("--seed", "1") == by_seed[0]
    file.write_text("seed = 3\n[generate]\nseed = 1\ntemperature = 2.0\n")
    monkeypatch.delenv("EDGERT_SEED")
    assert tokens() == by_seed[0]  # a command's own is nearer


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sead = 1", "no command has an option 'sead'"),
        ("[serv]\nport = 1", "there is no command 'serv'"),
        ("[serve]\nprot = 1", "serve has no option 'prot', only adapter, allow-pull, api-key, api-key-file, "),
        ("[convert]\nsource = 'x'", "convert has no option 'source'"),
        ("seed = ", "Invalid value"),
        ("\udcff", "can't decode"),
    ],
)
def test_mistakes_are_named(file: Path, text: str, message: str) -> None:
    file.write_bytes(text.encode(errors="surrogateescape"))
    done = run("tokenize", "demo", "x")
    assert isinstance(done.exception, RequestError)
    assert str(done.exception).startswith(f"{file}: ")
    assert message in str(done.exception)


def test_the_documented_file_is_right(file: Path) -> None:
    import typer

    from edgert.cli.app import app

    (shown,) = re.findall(r"```\n(threads = .*?)```", (ROOT / "docs" / "server.md").read_text(), re.DOTALL)
    file.write_text(shown)
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    found = configuration.read_configuration(file, commands)["serve"]
    assert found.keys() == {"threads", "models", "api_key_file", "log_format"}
    assert found["models"] == ["/srv/models/model.gguf"]


def test_values_are_checked_like_flags(file: Path) -> None:
    file.write_text("[serve]\nport = 'many'\n")
    done = run("serve", "demo")
    assert done.exit_code == 2
    assert "Invalid value for '--port'" in done.stderr


def test_lists_and_files_elsewhere(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text("[serve]\napi-key = ['one', ' ']\n")
    done = run("serve", "demo")
    assert str(done.exception) == "--api-key is empty"
    monkeypatch.setenv("EDGERT_CONFIG", str(tmp_path / "nowhere.toml"))
    assert "nowhere.toml: No such file" in str(run("serve", "demo").exception)
    monkeypatch.setenv("EDGERT_CONFIG", "")
    assert configuration.configuration_file() is None


def test_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EDGERT_CONFIG")
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)

    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    assert configuration.configuration_file() is None
