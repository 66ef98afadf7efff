"""The chat prompt: reading lines, slash commands, streaming answers, and what Ctrl-C and Ctrl-D do."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from edgert_models.errors import ContextLengthError, EdgertError, RequestError
from edgert_quant.files import expanded, read_text

from edgert.cli.console import out
from edgert.cli.conversation import Conversation
from edgert.cli.markdown import MarkdownStream

if TYPE_CHECKING:
    from prompt_toolkit import PromptSession

    from edgert import Chunk

_HELP = """\
/help, /?            this text
/bye, /exit          leave (Ctrl-D too)
/clear               forget the conversation
/regen               give the last answer again
/set NAME VALUE      change a setting: /set temperature 0.7, /set system You are brief.
/show                the model and the settings
/save FILE           write the conversation to a file
/load FILE           go on with a saved conversation
/read FILE           send the contents of a file
\"\"\"                  begins and ends a message of several lines
Ctrl-C               stops an answer; twice at the prompt, it leaves\
"""


class Repl:
    """Reads, answers, repeats."""

    def __init__(self, conversation: Conversation) -> None:
        self._conversation = conversation
        self._commands: dict[str, Callable[[str], Iterator[Chunk] | None]] = {
            "help": self._help,
            "?": self._help,
            "clear": self._clear,
            "regen": lambda _: self._conversation.ask_again(),
            "set": self._set,
            "show": self._show,
            "save": self._save,
            "load": self._load,
            "read": lambda rest: self._conversation.ask(read_text(_path(rest), "path")),
        }

    def run(self) -> None:
        """Until Ctrl-D, /bye, or Ctrl-C twice."""
        session = _prompt_session()
        out.print(f"[bold]{self._conversation.llm.name}[/bold], /help for help", style="dim")
        interrupted = False
        while True:
            try:
                line = self._read(session)
            except KeyboardInterrupt:
                if interrupted:
                    return
                interrupted = True
                out.print("Ctrl-C again (or Ctrl-D) to leave", style="dim")
                continue
            except EOFError:
                return
            interrupted = False
            if line.strip() in ("/bye", "/exit"):
                return
            if line.strip():
                self._handle(line)

    def _read(self, session: PromptSession[str]) -> str:
        line = session.prompt(">>> ")
        if not line.lstrip().startswith('"""'):
            return line
        text = line.lstrip()[3:]
        while '"""' not in text:
            text += "\n" + session.prompt("... ")
        return text[: text.index('"""')].strip("\n")

    def _handle(self, line: str) -> None:
        """One message or command; errors of ours and of the file system are told and end nothing."""
        try:
            if line.startswith("/"):
                word, _, rest = line[1:].strip().partition(" ")
                if word not in self._commands:
                    raise RequestError(f"unknown command /{word}; /help lists them")
                chunks = self._commands[word](rest.strip())
            else:
                chunks = self._conversation.ask(line)
            if chunks is not None:
                self._answer(chunks)
        except EdgertError as error:
            hint = "; /clear begins anew" if isinstance(error, ContextLengthError) else ""
            out.print(f"{error}{hint}", style="red", markup=False)
        except OSError as error:
            out.print(f"{error.filename}: {error.strerror}", style="red", markup=False)

    def _answer(self, chunks: Iterator[Chunk]) -> None:
        last = None
        try:
            with MarkdownStream(out) as stream:
                for chunk in chunks:
                    stream.think(chunk.reasoning)
                    stream.push(chunk.text)
                    last = chunk
        except KeyboardInterrupt:
            chunks.close()  # type: ignore[attr-defined]  # a generator: closing it cancels the request
            out.print("(stopped)", style="dim")
            return
        if last is not None and last.usage is not None and last.timings is not None:
            out.print(
                f"{last.usage.completion_tokens} tokens, {last.timings.decode_tokens_per_second:.1f} tokens/s, "
                f"first token after {last.timings.time_to_first_token:.2f} s",
                style="dim",
            )

    def _help(self, _: str) -> None:
        out.print(_HELP, markup=False)

    def _clear(self, _: str) -> None:
        self._conversation.turns.clear()
        out.print("forgotten", style="dim")

    def _set(self, rest: str) -> None:
        name, _, value = rest.partition(" ")
        if not name:
            raise RequestError("/set needs a name and a value: /set temperature 0.7")
        self._conversation.set(name, value.strip())

    def _show(self, _: str) -> None:
        conversation = self._conversation
        llm = conversation.llm
        out.print(f"{llm.path}: {llm.name}, {llm.spec.architecture}, context {llm.context}", markup=False)
        out.print(f"backend {llm.report.backend} ({llm.report.instruction_set}), {llm.report.threads} threads")
        out.print(f"system = {conversation.system}", markup=False)
        for name, value in asdict(conversation.params).items():
            out.print(f"{name} = {value}", markup=False)

    def _save(self, rest: str) -> None:
        self._conversation.save(_path(rest))
        out.print(f"saved to {_path(rest)}", style="dim", markup=False)

    def _load(self, rest: str) -> None:
        self._conversation.load(_path(rest))
        out.print(f"{len(self._conversation.turns)} messages", style="dim")


def _path(rest: str) -> Path:
    try:
        words = shlex.split(rest)
    except ValueError as error:
        raise RequestError(f"the file name is not well quoted: {error}") from None
    if len(words) != 1:
        raise RequestError("this command needs one file name")
    return expanded(words[0])


def _prompt_session() -> PromptSession[str]:
    """A line editor whose history outlives the session where the state folder can be written."""
    from prompt_toolkit import PromptSession
    from prompt_toolkit.history import FileHistory, History, InMemoryHistory

    history: History = InMemoryHistory()
    try:
        folder = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "edgert"
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / "history"
        file.touch(mode=0o600)
        history = FileHistory(str(file))
    except (OSError, RuntimeError):  # RuntimeError: there is no home
        pass  # no history is better than no chat
    return PromptSession(history=history)
