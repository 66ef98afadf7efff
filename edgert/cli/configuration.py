"""Options from a file: a flag beats the environment, which beats the file.

The file is TOML: what stands at its top is for every command that has the option, a table is for the command of its
name.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgert_models.errors import RequestError

Defaults = dict[str, dict[str, Any]]
"""Values by command and parameter, as click's `default_map` takes them."""


def configuration_file() -> Path | None:
    """$EDGERT_CONFIG (empty: none at all), else `edgert/config.toml` in the XDG configuration folder if it is there."""
    named = os.environ.get("EDGERT_CONFIG")
    if named is not None:
        return Path(named) if named else None
    base = os.environ.get("XDG_CONFIG_HOME", "")
    if not Path(base).is_absolute():
        try:
            base = str(Path.home() / ".config")
        except RuntimeError:  # there is no home
            return None
    path = Path(base) / "edgert" / "config.toml"
    return path if path.is_file() else None


def read_configuration(path: Path, commands: Mapping[str, Any]) -> Defaults:
    """What the file says for `commands` of click; RequestError names a key that none has, or what else is wrong."""
    import tomllib  # few have a file

    try:
        with path.open("rb") as file:
            content = tomllib.load(file)
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise RequestError(f"{path}: {reason}", parameter="config") from None
    names = {command: _parameters(each) for command, each in commands.items()}
    common: dict[str, Any] = {}
    tables: dict[str, dict[str, Any]] = {}
    for key, value in content.items():
        if isinstance(value, dict):
            tables[key] = value
        elif any(key in known for known in names.values()):
            common[key] = value
        else:
            raise RequestError(f"{path}: no command has an option {key!r}", parameter=key)
    for command, table in tables.items():
        if command not in commands:
            raise RequestError(f"{path}: there is no command {command!r}", parameter=command)
        for key in table.keys() - names[command].keys():
            known = ", ".join(sorted(names[command]))
            raise RequestError(f"{path}: {command} has no option {key!r}, only {known}", parameter=key)
    return {
        command: {known[key]: value for key, value in {**common, **tables.get(command, {})}.items() if key in known}
        for command, known in names.items()
    }


def _parameters(command: Any) -> dict[str, str]:
    """Parameters by what they are called in the file: options as their long flags, arguments by name. What has to be
    typed is none of them.
    """
    found: dict[str, str] = {}
    for parameter in command.params:
        if parameter.required or parameter.name is None:
            continue
        flags = [flag for flag in parameter.opts if flag.startswith("--")] or [parameter.name]
        found |= {flag.lstrip("-"): parameter.name for flag in flags}
    return found
