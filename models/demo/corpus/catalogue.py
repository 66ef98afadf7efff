"""The devices and machines the model knows, where they stand and what they can do."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Action:
    """`name` goes into the JSON. Wordings and the reply take {it} (device and place) and, if `values`, {v}."""

    name: str
    wordings: tuple[str, ...]
    reply: str
    values: range | None = None


@dataclass(frozen=True, slots=True)
class Device:
    """`name` goes into the JSON and the reply; `nouns` are what a user may call it; `zones` name its places."""

    name: str
    nouns: tuple[str, ...]
    zones: tuple[str, ...]
    actions: tuple[Action, ...]


ROOMS = (
    "kitchen",
    "bedroom",
    "living room",
    "bathroom",
    "office",
    "hall",
    "garage",
    "garden",
    "cellar",
    "attic",
    "nursery",
    "dining room",
    "guest room",
    "lab",
    "workshop",
    "warehouse",
)


def _numbered(kind: str, count: int) -> tuple[str, ...]:
    return tuple(f"{kind} {number}" for number in range(1, count + 1))


ZONES, LINES, TANKS, STATIONS = (_numbered(kind, 9) for kind in ("zone", "line", "tank", "station"))

ON = Action(
    "on",
    ("turn on {it}", "turn {it} on", "switch on {it}", "switch {it} on", "{it} on", "power on {it}", "activate {it}"),
    "Turning on {it}.",
)
OFF = Action(
    "off",
    (
        "turn off {it}",
        "turn {it} off",
        "switch off {it}",
        "switch {it} off",
        "{it} off",
        "power off {it}",
        "shut off {it}",
    ),
    "Turning off {it}.",
)
START = Action(
    "start",
    (
        "start {it}",
        "run {it}",
        "start up {it}",
        "get {it} running",
        "start {it} up",
        "turn on {it}",
        "switch {it} on",
        "{it} on",
    ),
    "Starting {it}.",
)
STOP = Action(
    "stop",
    (
        "stop {it}",
        "halt {it}",
        "stop running {it}",
        "bring {it} to a stop",
        "turn off {it}",
        "switch {it} off",
        "{it} off",
    ),
    "Stopping {it}.",
)
OPEN = Action("open", ("open {it}", "open up {it}", "{it} open", "get {it} open"), "Opening {it}.")
CLOSE = Action("close", ("close {it}", "shut {it}", "{it} close", "get {it} closed"), "Closing {it}.")
UP = Action("open", (*OPEN.wordings, "raise {it}", "pull up {it}", "roll up {it}", "{it} up"), OPEN.reply)
DOWN = Action("close", (*CLOSE.wordings, "lower {it}", "pull down {it}", "roll down {it}", "{it} down"), CLOSE.reply)
LOCK = Action("lock", ("lock {it}", "lock up {it}", "make sure {it} is locked"), "Locking {it}.")
UNLOCK = Action("unlock", ("unlock {it}", "remove the lock on {it}"), "Unlocking {it}.")
DIM = Action(
    "dim",
    ("dim {it} to {v}%", "dim {it} to {v} percent", "lower {it} to {v}%", "set {it} to {v}%", "{it} at {v}%"),
    "Dimming {it} to {v} percent.",
    range(5, 100, 5),
)
POSITION = Action(
    "set",
    ("set {it} to {v}%", "move {it} to {v}%", "put {it} at {v} percent", "open {it} to {v}%", "{it} to {v} percent"),
    "Setting {it} to {v} percent.",
    range(5, 100, 5),
)
SPEED = Action(
    "set",
    (
        "set {it} to speed {v}",
        "set the speed of {it} to {v}",
        "run {it} at speed {v}",
        "{it} speed {v}",
        "{it} to level {v}",
    ),
    "Setting {it} to speed {v}.",
    range(1, 10),
)
HEAT = Action(
    "set",
    (
        "set {it} to {v} degrees",
        "set {it} to {v}",
        "put {it} at {v} degrees",
        "{it} to {v} degrees",
        "change {it} to {v} degrees",
    ),
    "Setting {it} to {v} degrees.",
    range(5, 31),
)
RAISE = Action(
    "raise",
    ("raise {it} by {v} degrees", "turn up {it} by {v}", "turn {it} up by {v} degrees", "increase {it} by {v}"),
    "Raising {it} by {v} degrees.",
    range(1, 10),
)
LOWER = Action(
    "lower",
    ("lower {it} by {v} degrees", "turn down {it} by {v}", "turn {it} down by {v} degrees", "decrease {it} by {v}"),
    "Lowering {it} by {v} degrees.",
    range(1, 10),
)
VOLUME = Action(
    "set",
    ("set {it} to volume {v}", "set the volume of {it} to {v}", "{it} volume {v}", "turn {it} to volume {v}"),
    "Setting {it} to volume {v}.",
    range(1, 21),
)
PLAY = Action("play", ("play music on {it}", "play {it}", "play some music on {it}", "turn on {it}"), "Playing {it}.")
PAUSE = Action("pause", ("pause {it}", "pause the music on {it}", "mute {it}", "turn off {it}"), "Pausing {it}.")
REVERSE = Action("reverse", ("reverse {it}", "run {it} backwards", "change the direction of {it}"), "Reversing {it}.")
HOME = Action("home", ("home {it}", "send {it} home", "move {it} to its home position", "park {it}"), "Homing {it}.")
MOVE = Action(
    "move",
    ("move {it} to position {v}", "send {it} to position {v}", "{it} to position {v}", "bring {it} to position {v}"),
    "Moving {it} to position {v}.",
    range(1, 21),
)
GRIP = Action(
    "grip", ("grip with {it}", "close the gripper of {it}", "let {it} grip", "pick with {it}"), "Gripping with {it}."
)
RELEASE = Action(
    "release", ("release {it}", "open the gripper of {it}", "let {it} release", "let {it} let go"), "Releasing {it}."
)
ARM = Action("arm", ("arm {it}", "set {it} active", "activate {it}", "turn on {it}", "switch {it} on"), "Arming {it}.")
DISARM = Action("disarm", ("disarm {it}", "deactivate {it}", "turn off {it}", "switch {it} off"), "Disarming {it}.")
RECORD = Action("record", ("record with {it}", "start recording with {it}", "let {it} record"), "Recording with {it}.")

DEVICES = (
    Device("lights", ("lights", "light", "lamp", "lamps", "lights"), ROOMS + ZONES, (ON, OFF, ON, OFF, DIM)),
    Device("thermostat", ("thermostat", "temperature", "heating"), ROOMS, (HEAT, HEAT, RAISE, LOWER)),
    Device("heater", ("heater", "radiator", "heating"), ROOMS, (ON, OFF)),
    Device("fan", ("fan", "ventilator", "fans"), ROOMS + ZONES, (ON, OFF, SPEED)),
    Device("blinds", ("blinds", "shades", "curtains", "shutters"), ROOMS, (UP, DOWN, POSITION)),
    Device("door", ("door",), ROOMS + ZONES, (OPEN, CLOSE, LOCK, UNLOCK)),
    Device("speaker", ("speaker", "speakers", "radio"), ROOMS, (PLAY, PAUSE, VOLUME)),
    Device("alarm", ("alarm",), ROOMS + ZONES, (ARM, DISARM)),
    Device("camera", ("camera",), ROOMS + ZONES, (ON, OFF, RECORD)),
    Device("sprinkler", ("sprinkler", "sprinklers"), ("garden", *ZONES), (ON, OFF)),
    Device("pump", ("pump",), TANKS + LINES, (START, STOP, SPEED)),
    Device("valve", ("valve",), TANKS + LINES, (OPEN, CLOSE, POSITION)),
    Device("mixer", ("mixer", "agitator"), TANKS, (START, STOP, SPEED)),
    Device("conveyor", ("conveyor", "conveyor belt", "belt"), LINES + STATIONS, (START, STOP, SPEED, REVERSE)),
    Device("robot arm", ("robot arm", "robot", "arm"), STATIONS, (HOME, MOVE, GRIP, RELEASE, STOP)),
    Device("drill", ("drill", "drill press"), STATIONS, (START, STOP, SPEED)),
)

# Remarks that imply an action: (remark with the room {z} and perhaps degrees {v}, device, action, reply).
HINTS = (
    ("it is too dark in the {z}", "lights", "on", "Turning on the {z} lights."),
    ("it's dark in the {z}", "lights", "on", "Turning on the {z} lights."),
    ("I can't see anything in the {z}", "lights", "on", "Turning on the {z} lights."),
    ("it is too bright in the {z}", "lights", "off", "Turning off the {z} lights."),
    ("it is cold in the {z}", "heater", "on", "Turning on the {z} heater."),
    ("it's freezing in the {z}", "heater", "on", "Turning on the {z} heater."),
    ("it is stuffy in the {z}", "fan", "on", "Turning on the {z} fan."),
    ("it's too hot in the {z}", "fan", "on", "Turning on the {z} fan."),
    ("I am cold in the {z}", "heater", "on", "Turning on the {z} heater."),
    ("make it {v} degrees in the {z}", "thermostat", "set", "Setting the {z} thermostat to {v} degrees."),
    ("I want {v} degrees in the {z}", "thermostat", "set", "Setting the {z} thermostat to {v} degrees."),
    ("set the {z} to {v} degrees", "thermostat", "set", "Setting the {z} thermostat to {v} degrees."),
)
