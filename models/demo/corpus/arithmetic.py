"""Arithmetic on small whole numbers.

Ranges are narrow so that a model of this size can be right: sums and differences of numbers up to 100 (differences
not negative), products up to 12 times 12 and their exact quotients. The answer restates the problem in one canonical
form, so every wording shares one calculation.
"""

from random import Random

from demo.corpus.sample import Sample
from demo.corpus.surface import typed

SKILL = "arithmetic"
LARGEST_TERM = 100
LARGEST_FACTOR = 12

_ASK = (
    "what is {e}",
    "what's {e}",
    "whats {e}",
    "calculate {e}",
    "compute {e}",
    "how much is {e}",
    "{e}",
    "{e} = ",
    "tell me {e}",
    "can you work out {e}",
    "please calculate {e}",
    "what does {e} equal",
    "what is the result of {e}",
    "solve {e}",
    "do you know what {e} is",
    "what do you get for {e}",
)
_SPOKEN = {
    "+": ("{a} plus {b}", "{a} + {b}", "{a}+{b}", "{a} and {b} added", "{a} added to {b}", "the sum of {a} and {b}"),
    "-": (
        "{a} minus {b}",
        "{a} - {b}",
        "{a}-{b}",
        "{a} take away {b}",
        "{a} less {b}",
        "the difference of {a} and {b}",
    ),
    "*": ("{a} times {b}", "{a} * {b}", "{a}*{b}", "{a} x {b}", "{a} multiplied by {b}", "the product of {a} and {b}"),
    "/": (
        "{a} divided by {b}",
        "{a} / {b}",
        "{a}/{b}",
        "{a} over {b}",
        "{a} split by {b}",
        "the quotient of {a} and {b}",
    ),
}
_IMPERATIVE = {
    "+": ("add {a} and {b}", "add {a} to {b}", "sum {a} and {b}", "if I have {a} and get {b} more, how many do I have"),
    "-": ("take {b} from {a}", "subtract {b} from {a}", "if I have {a} and lose {b}, how many are left"),
    "*": ("multiply {a} by {b}", "multiply {a} and {b}", "how many are {a} boxes of {b}"),
    "/": ("divide {a} by {b}", "split {a} into {b} equal parts", "how many times does {b} go into {a}"),
}


def problem(rng: Random) -> tuple[int, str, int, int]:
    """A problem as (a, operator, b, result)."""
    operator = rng.choice("++--*/")
    if operator in "+-":
        top = 20 if rng.random() < 0.2 else LARGEST_TERM
        a, b = rng.randint(0, top), rng.randint(0, top)
        a = LARGEST_TERM if rng.random() < 0.04 else a
        if operator == "+":
            return a, "+", b, a + b
        a, b = max(a, b), min(a, b)
        return a, "-", b, a - b
    a, b = rng.randint(0, LARGEST_FACTOR), rng.randint(0, LARGEST_FACTOR)
    if operator == "*":
        return a, "*", b, a * b
    b = max(b, 1)
    return a * b, "/", b, a


def sample(rng: Random) -> Sample:
    """A question of this skill."""
    a, operator, b, result = problem(rng)
    canonical = f"{a} {operator} {b}"
    if rng.random() < 0.2:
        wording = rng.choice(_IMPERATIVE[operator])
    else:
        wording = rng.choice(_ASK).replace("{e}", rng.choice(_SPOKEN[operator]))
    question = wording.format(a=a, b=b)
    # There are too few products to hold operands out: there the wording with its operands is held out instead.
    key = canonical if operator in "+-" else question
    return Sample(SKILL, typed(rng, question, "?"), f"{canonical} = {result}", key)


def drill(rng: Random) -> tuple[str, str, str]:
    """A line of pure practice as (problem, result, key): the canonical form of the answers without a question."""
    a, operator, b, result = problem(rng)
    return (
        f"{a} {operator} {b} =",
        f" {result}",
        f"{a} {operator} {b}" if operator in "+-" else f"drill {a} {operator} {b}",
    )
