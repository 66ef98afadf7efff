"""Surface forms of a question: politeness, casing, punctuation."""

from random import Random

_BEFORE = (
    "please",
    "can you",
    "could you",
    "could you please",
    "would you",
    "hey,",
    "hi,",
    "ok,",
    "I want you to",
    "I'd like you to",
    "I need you to",
    "now",
    "pls",
    "just",
)
_AFTER = ("please", "now", "right now", "for me", "thanks", "for a moment", "pls", "immediately", "if you can")


def choices(text: str) -> tuple[str, ...]:
    """The choices in a list separated by semicolons."""
    return tuple(choice.strip() for choice in text.split(";"))


def polite(rng: Random, command: str) -> str:
    """`command` with something before or after it, or neither; half of the commands stay as they are."""
    draw = rng.random()
    if draw < 0.3:
        return f"{rng.choice(_BEFORE)} {command}"
    if draw < 0.5:
        return f"{command}{rng.choice((' ', ' ', ', '))}{rng.choice(_AFTER)}"
    return command


def typed(rng: Random, sentence: str, mark: str = ".") -> str:
    """`sentence` as somebody types it: first letter, end mark and case vary. `mark` is the proper end mark."""
    draw = rng.random()
    if draw < 0.55:
        sentence = sentence[0].upper() + sentence[1:]
    elif draw < 0.60:
        sentence = sentence.upper()
    elif draw < 0.80:
        sentence = sentence.lower()
    draw = rng.random()
    if draw < 0.55:
        return sentence + mark
    return sentence + (rng.choice(("!", " ", "..", "?", "")) if draw > 0.93 else "")
