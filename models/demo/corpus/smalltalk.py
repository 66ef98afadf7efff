"""Small talk, and a polite refusal of what lies outside the model's skills."""

from random import Random

from demo.corpus.sample import Sample
from demo.corpus.surface import choices, typed

SMALLTALK, REFUSAL = "smalltalk", "refusal"

SKILLS_LINE = "I can control devices, convert units, do small arithmetic and look things up in a table you give me."
REFUSAL_LINE = f"Sorry, that is outside what I know. {SKILLS_LINE}"
NO_CONVERSION_LINE = "Sorry, I don't know that conversion."
TOO_LARGE_LINE = "Sorry, those numbers are too large for me."

# (wordings, answer); every wording may be called with a name or a greeting around it.
_TALK: tuple[tuple[tuple[str, ...], str], ...] = (
    (
        choices(
            "hello; hi; hey; good morning; good evening; good afternoon; hi there; hello there; hey there; howdy; "
            "greetings; hiya; yo; good day"
        ),
        "Hello! How can I help?",
    ),
    (
        choices(
            "thanks; thank you; thanks a lot; thank you very much; great, thanks; many thanks; cheers; thx; that was "
            "helpful; perfect, thank you; nice, thanks; good job; well done; great; awesome"
        ),
        "You're welcome!",
    ),
    (
        choices(
            "who are you; what are you; what is your name; what's your name; are you a robot; are you human; tell me "
            "about yourself; introduce yourself; what model are you; who am I talking to; are you an AI; who made "
            "you; what kind of model are you"
        ),
        "I am the edgert demo model, a small mixture-of-experts assistant.",
    ),
    (
        choices(
            "what can you do; help; help me; what do you know; how can you help me; what are your skills; how does "
            "this work; what can I ask you; what are you good at; give me some help; I need help; what can I say; "
            "show me what you can do; can you help me; what should I ask; what are you able to do"
        ),
        SKILLS_LINE,
    ),
    (
        choices(
            "bye; goodbye; see you; see you later; good night; bye bye; talk to you later; that's all; quit; I have "
            "to go; see you tomorrow; have a nice day"
        ),
        "Goodbye!",
    ),
    (
        choices(
            "how are you; how are you doing; how do you do; how is it going; are you ok; what's up; how are things; "
            "how do you feel; how's your day"
        ),
        "I am fine, thank you. How can I help?",
    ),
    (
        choices("sorry; never mind; ok; okay; alright; I see; fine; got it; no problem; yes; no; sure"),
        "All right. Is there anything else?",
    ),
)
_OPENING = choices("hi; hello; hey; ok; so; well; hi there")
_CLOSING = choices("assistant; robot; my friend; edgert; then; please; again; everyone; there; demo; buddy; now")

_OUTSIDE = choices(
    "what is the capital of {place}; where is {place}; how many people live in {place}; what language do they speak "
    "in {place}; how far is it to {place}; tell me about {place}; who is the president of {place}; who wrote {work}; "
    "summarize {work}; who is the author of {work}; what is {work} about; write a {text} about {thing}; tell me a "
    "{text} about {thing}; tell me a joke; tell me a story; sing a song; what is the meaning of {thing}; explain "
    "{subject}; what is {subject}; how does {subject} work; teach me {subject}; who invented {subject}; what do you "
    "think about {thing}; do you like {thing}; what is your opinion on {thing}; translate {thing} into {language}; "
    "how do you say {thing} in {language}; do you speak {language}; who won the {event}; when is the {event}; what is "
    "the weather in {place}; will it rain tomorrow; what time is it; what day is it today; write a program in "
    "{language_code}; write {language_code} code for {subject}; recommend a {media}; what {media} should I get; book "
    "a flight to {place}; order a pizza; how do I cook {food}; give me a recipe for {food}; what is in {food}; what "
    "is the news; should I buy {food}; how old is the {object}; how big is the {object}; why is the {object} so "
    "bright"
)
_SLOTS: dict[str, tuple[str, ...]] = {
    "place": choices(
        "France; Germany; Japan; Brazil; Canada; India; Egypt; Spain; Kenya; Norway; Peru; China; Mexico; London; Tokyo"
    ),
    "work": choices("Hamlet; Faust; the Odyssey; Don Quixote; War and Peace; Moby Dick; the Bible; Dracula; Emma"),
    "text": choices("poem; story; song; letter; joke; novel; report; haiku"),
    "thing": choices("love; life; cats; the sea; dogs; winter; friendship; politics; music; football; money"),
    "subject": choices(
        "gravity; quantum physics; photosynthesis; calculus; history; electricity; chess; evolution; the internet; "
        "machine learning; philosophy; blockchain; DNA; a black hole"
    ),
    "language": choices("French; German; Spanish; Chinese; Latin; Japanese; Italian; Russian"),
    "event": choices("world cup; election; race; final; super bowl; olympics; world series"),
    "language_code": choices("Python; C; Java; Rust; assembly; JavaScript"),
    "media": choices("movie; book; song; restaurant; game; phone; car"),
    "food": choices("lasagna; curry; an omelette; pancakes; sushi; bread; a cake; chili"),
    "object": choices("sun; moon; earth; universe; Eiffel tower; Milky Way; pyramids"),
}


# Units of conversions that were not practised: one of them, or two, makes a question unanswerable.
_UNKNOWN_UNITS = choices(
    "miles; pounds; ounces; gallons; yards; acres; pints; kelvin; stones; euros; dollars; bytes; volts"
)
_KNOWN_UNITS = choices("km; kilometers; meters; cm; kg; grams; liters; celsius; kW")
_CONVERT = choices(
    "convert {n} {s} to {t}; how many {t} are {n} {s}; {n} {s} in {t}; {n} {s} to {t}; what is {n} {s} in {t}; "
    "how many {t} are in {n} {s}; how much is {n} {s} in {t}"
)


def smalltalk(rng: Random) -> Sample:
    """A greeting, thanks, a question about the model, or the like."""
    wordings, answer = rng.choice(_TALK)
    said = rng.choice(wordings)
    draw = rng.random()
    if draw < 0.2:
        said = f"{rng.choice(_OPENING)}{rng.choice((' ', ', '))}{said}"
    elif draw < 0.4:
        said = f"{said}{rng.choice((' ', ', '))}{rng.choice(_CLOSING)}"
    return Sample(SMALLTALK, typed(rng, said, rng.choice(".?!")), answer, said)


def _beyond(rng: Random) -> tuple[int, str, int]:
    """A problem with larger numbers than were practised: three digits and more, or factors above those of the table."""
    operator = rng.choice(("+", "-", "*", "plus", "minus", "times"))
    low = 13 if operator in ("*", "times") else 101
    large = rng.randint(low, 10 ** rng.randint(3, 5))
    other = rng.randint(2, 10 ** rng.randint(1, 4))
    return (large, operator, other) if rng.random() < 0.7 else (other, operator, large)


def refusal(rng: Random) -> Sample:
    """A question outside the skills, or with numbers beyond those practised."""
    if rng.random() < 0.2:
        a, operator, b = _beyond(rng)
        asked = f"{rng.choice(('what is ', 'calculate ', '', 'compute ', 'how much is '))}{a} {operator} {b}"
        return Sample(REFUSAL, typed(rng, asked, "?"), TOO_LARGE_LINE, asked)
    if rng.random() < 0.12:
        amount = rng.randint(1, 200)
        source, target = rng.choice(_UNKNOWN_UNITS), rng.choice(_UNKNOWN_UNITS + _KNOWN_UNITS)
        if rng.random() < 0.3:
            source, target = target, source
        asked = rng.choice(_CONVERT).format(n=amount, s=source, t=target)
        return Sample(REFUSAL, typed(rng, asked, "?"), NO_CONVERSION_LINE, asked)
    slots = {name: rng.choice(choices) for name, choices in _SLOTS.items()}
    asked = rng.choice(_OUTSIDE).format(**slots)
    opening = rng.choice(("", "", "", "", "can you tell me ", "please ", "hey, ", "I want to know: "))
    return Sample(REFUSAL, typed(rng, opening + asked, "?"), REFUSAL_LINE, asked)
