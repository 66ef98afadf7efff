"""Markdown becomes nodes, and nothing else: run in the browser, told as HTML."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.edgert.server.conftest import Served
    from tests.support.browser import Browser

AWAY = ' target="_blank" rel="noopener noreferrer nofollow"'
"""What every link has."""
TABLE = (
    '<div class="table" tabindex="0" role="region" aria-label="Table"><table>'
    '<thead><tr><th>a</th><th class="center">b</th></tr></thead><tbody>'
    '<tr><td>1</td><td class="center">2</td></tr>'
    '<tr><td>|</td><td class="center"><code>x</code></td></tr></tbody></table></div>'
)
CASES = [
    ("a\nb", "<p>a<br>b</p>"),
    ("a\n\nb", "<p>a</p><p>b</p>"),
    ("# One\n## Two ##\n####### seven", "<h2>One</h2><h3>Two</h3><p>####### seven</p>"),
    ("*a* _b_ **c** __d__", "<p><em>a</em> <em>b</em> <strong>c</strong> <strong>d</strong></p>"),
    ("~~e~~ ***f***", "<p><del>e</del> <strong><em>f</em></strong></p>"),
    ("2 * 3 * 4, snake_case_name, a*b, **open", "<p>2 * 3 * 4, snake_case_name, a*b, **open</p>"),
    ("**bold with *em* inside**", "<p><strong>bold with <em>em</em> inside</strong></p>"),
    ("`a*b*` ``c`d`` `open", "<p><code>a*b*</code> <code>c`d</code> `open</p>"),
    (r"\*no\* \`no\` \\", r"<p>*no* `no` \</p>"),
    (
        "- a\n- b\n  - c\n\n  more\n- d",
        "<ul><li>a</li><li>b<ul><li>c</li></ul><p>more</p></li><li>d</li></ul>",
    ),
    ("3. a\n4. b", '<ol start="3"><li>a</li><li>b</li></ol>'),
    ("* a\n\n* b", "<ul><li><p>a</p></li><li><p>b</p></li></ul>"),
    ("- [x] a", '<ul><li><input type="checkbox" disabled="" checked="" aria-label="Done">a</li></ul>'),
    ("> a\n> > b\n\nc", "<blockquote><p>a</p><blockquote><p>b</p></blockquote></blockquote><p>c</p>"),
    ("---\n***", "<hr><hr>"),
    ("a | b\n--|:-:\n1 | 2\n\\| | `x`", TABLE),
    ("a | b", "<p>a | b</p>"),
    ('[t](https://e.org/a_(b) "x")', f'<p><a href="https://e.org/a_(b)"{AWAY}>t</a></p>'),
    ("<https://e.org>", f'<p><a href="https://e.org/"{AWAY}>https://e.org</a></p>'),
    ("see https://e.org/x.", f'<p>see <a href="https://e.org/x"{AWAY}>https://e.org/x</a>.</p>'),
    ("![pic](https://e.org/p.png)", f'<p><a href="https://e.org/p.png"{AWAY}>pic</a></p>'),
    ("[a](javascript:alert(1)) [b](data:text/html,x)", "<p><span>a</span> <span>b</span></p>"),
    ("[c](/v1/models) [d](JaVaScRiPt:x)", "<p><span>c</span> <span>d</span></p>"),
    ("[e](\u0001javascript:x)", "<p><span>e</span></p>"),
    ("<b>x</b> <img src=x onerror=alert(1)>", "<p>&lt;b&gt;x&lt;/b&gt; &lt;img src=x onerror=alert(1)&gt;</p>"),
    ("&amp; <!-- -->", "<p>&amp;amp; &lt;!-- --&gt;</p>"),
]
SHOWN = """
const { show } = await import("/page/markdown.js");
const element = document.createElement("div");
show(element, args[0]);
return element.innerHTML;
"""


@pytest.fixture(scope="module")
def shown(chromium: Browser, talking: tuple[Served, object]) -> Browser:
    chromium.open(talking[0].url)
    return chromium


@pytest.mark.parametrize(("text", "expected"), CASES, ids=range(len(CASES)))
def test_forms(shown: Browser, text: str, expected: str) -> None:
    assert shown.run(SHOWN, text) == expected


def test_code(shown: Browser) -> None:
    found = shown.run(SHOWN, "```html\n<script>x</script>\n\n  *y*\n```\nafter")
    assert "<span>html</span>" in found
    assert "<code>&lt;script&gt;x&lt;/script&gt;\n\n  *y*</code>" in found
    assert found.endswith("<p>after</p>")
    still_open = shown.run(SHOWN, "~~~\na\n```\nb")
    assert "<code>a\n```\nb</code>" in still_open


def test_an_answer_that_grows_keeps_what_is_done(shown: Browser) -> None:
    same = """
    const { show } = await import("/page/markdown.js");
    const element = document.createElement("div");
    const text = "# a\\n\\nfirst *x*\\n\\n- b\\n- c\\n\\n```\\ncode\\n```\\nlast";
    show(element, text.slice(0, 20));
    const heading = element.firstChild;
    for (let i = 20; i <= text.length; i++) show(element, text.slice(0, i));
    const whole = document.createElement("div");
    show(whole, text);
    return [heading === element.firstChild, element.innerHTML === whole.innerHTML];
    """
    assert shown.run(same) == [True, True]


@pytest.mark.parametrize(
    "text",
    [
        "*a " * 30000,
        "[" * 50000,
        "> " * 30000,
        "- " * 20000,
        "`a ``b " * 20000,
        "**" * 40000,
        "https://" * 10000,
        "[a](" * 20000,
        "_" * 50000,
        "|a" * 20000 + "\n" + "|-" * 20000,
    ],
)
def test_hostile_texts_are_read_to_the_end(shown: Browser, text: str) -> None:
    """A text that would be searched again and again keeps the page busy for minutes, and the driver gives up."""
    assert shown.run(SHOWN, text).startswith("<")
