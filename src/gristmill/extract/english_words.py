"""Words and punctuation marks of English text, cut where spaCy's English tokenizer cuts them, which the code that made
FineWeb counts by. Rules have their limits on these counts: on another cut, other documents are dropped.

Text is cut at white space. From each piece marks are taken off both ends, one at a time, until nothing comes off or what is
left is known as a whole: an abbreviation, a contraction, an emoticon, a web address. What is left is cut inside: at hyphens
between letters, at "..." and the like. A text has few distinct pieces, so each is cut once and remembered.

Source: the tokenizer's documentation and language data (spaCy 3.8), as facts; benchmarks/rules.py compares the two on real
text. Known to differ: letters and symbols are those of Unicode, not of spaCy's lists, and emoticons stuck to a word.
"""

from __future__ import annotations

import functools
import itertools
import re
import string
import unicodedata
from collections.abc import Iterable, Iterator

REMEMBERED = 2**17  # pieces: 40 MB of real text
LONGEST_REMEMBERED = 64  # characters: a longer piece hardly ever comes again, and may be megabytes
MOST_PARTS = 7  # of a piece that is known as a whole
LONGEST_ADDRESS = 2**10  # characters

# ── known as a whole ─────────────────────────────────────────────────────────────────────────────────────────────────

_ABBREVIATIONS = (
    "a.m. p.m. e.g. E.g. E.G. i.e. I.e. I.E. vs. v.s. co. Co. Adm. Bros. Corp. D.C. Dr. Gen. Gov. Inc. Jr. Ltd. Md. Messrs. Mo. Mont. "
    "Mr. Mrs. Ms. Mt. Ph.D. Prof. Rep. Rev. Sen. St. Ak. Ala. Ariz. Ark. Calif. Colo. Conn. Del. Fla. Ga. Ia. Id. Ill. Ind. Kan. "
    "Kans. Ky. La. Mass. Mich. Minn. Miss. N.C. N.D. N.H. N.J. N.M. N.Y. Neb. Nebr. Nev. Okla. Ore. Pa. S.C. Tenn. Va. Wash. Wis. "
    'Jan. Feb. Mar. Apr. Jun. Jul. Aug. Sep. Sept. Oct. Nov. Dec. ä. ö. ü. and/or w/o C++ <space> \\t \\n \\")'
)
_WITH_APOSTROPHE = (
    "' '' 'S 's ‘S ‘s 'd 'll 're 'em 'nuff 'bout 'cause 'Cause 'cos 'Cos 'coz 'Coz 'cuz 'Cuz ma'am Ma'am o'clock O'clock "
    "doin' goin' havin' lovin' nothin' nuthin' ol' somethin' Doin' Goin' Havin' Lovin' Nothin' Nuthin' Ol' Somethin'"
)
_EMOTICONS = (
    ":) :-) :)) :-)) :))) :-))) (: (-: =) (= :] :-] [: [-: [= =] :o) (o: :} :-} 8) 8-) (-8 ;) ;-) (; (-; :( :-( :(( :-(( :((( :-((( "
    "): )-: =( >:( :') :'-) :'( :'-( :/ :-/ =/ =| :| :-| ]= =[ :1 :P :-P :p :-p :O :-O :o :-o :0 :-0 :() >:o :* :-* :3 :-3 =3 :> :-> "
    ":X :-X :x :-x :D :-D ;D ;-D =D 8D 8-D ^_^ ^__^ ^___^ >.< >.> <.< ._. ;_; -_- -__- v.v V.V v_v V_V o_o o_O O_o O_O 0_o o_0 0_0 o.O "
    "O.o O.O o.o 0.0 o.0 0.o @_@ <3 <33 <333 </3 (^_^) (-_-) (._.) (>_<) (*_*)"
)


_PERSONS = "i you he she it we they"
_ASKING = "who what when where why how there"
_VERBS_NOT_HAVE = "ca could do does did had may might must need ought sha should wo would"  # "couldn't've"
_VERBS_NOT = "ai are is was were have has dare"
_NO_CONTRACTIONS = frozenset(("ill", "its", "hell", "shell", "shed", "were", "well", "whore"))  # "its", but not "it's"


def _contractions() -> Iterator[tuple[str, ...]]:
    for subject in f"{_PERSONS} {_ASKING} that this these those".split():
        yield from ((subject, "'ll"), (subject, "'ll", "'ve"), (subject, "'d"), (subject, "'d", "'ve"))
    for subject in f"he she it {_ASKING} that this".split():
        yield (subject, "'s")
    for subject in f"you we they {_ASKING} these those".split():
        yield (subject, "'re")
    for subject in f"i you we they {_ASKING} these those could might must should would not".split():
        yield (subject, "'ve")
    for verb in _VERBS_NOT_HAVE.split():
        yield from ((verb, "n't"), (verb, "n't", "'ve"))
    for verb in _VERBS_NOT.split():
        yield (verb, "n't")
    yield from (("i", "'m"), ("i", "'m", "a"))


def _with_capital(parts: tuple[str, ...]) -> tuple[str, ...]:
    return (parts[0].capitalize(), *parts[1:])


def _known() -> dict[str, tuple[str, ...]]:
    known: dict[str, tuple[str, ...]] = {}
    for small in _contractions():
        for parts in (small, _with_capital(small)):
            known["".join(parts)] = parts
            bare = tuple(part.replace("'", "") for part in parts)
            if "".join(bare).lower() not in _NO_CONTRACTIONS:
                known["".join(bare)] = bare
    other = (("can", "not"), ("gon", "na"), ("got", "ta"), ("let", "'s"), ("c'm", "on"), ("how", "'d", "'y"))
    for parts in (*other, *map(_with_capital, other), ("y'", "all"), ("y", "all")):
        known["".join(parts)] = parts
    for hour in range(1, 13):
        for half in ("a.m.", "am", "p.m.", "pm"):
            known[f"{hour}{half}"] = (str(hour), half)
    for whole in f"{_ABBREVIATIONS} {_WITH_APOSTROPHE} {_EMOTICONS}".split():
        known[whole] = (whole,)
    for letter in string.ascii_lowercase:
        known[f"{letter}."] = (f"{letter}.",)
    for name, parts in list(known.items()):
        if "'" in name:
            known[name.replace("'", "’")] = tuple(part.replace("'", "’") for part in parts)
    return known


_KNOWN = _known()
_LONGEST_KNOWN = max(map(len, _KNOWN))

# ── what comes off, and where a piece is cut ─────────────────────────────────────────────────────────────────────────

_MARKS = "…,:;!?¿؟¡()[]{}<>_#*&。？！，、；：～·।،۔؛٪"
_QUOTES = "'\"”“`‘´’‚„»«「」『』（）〔〕【】《》〈〉⟦⟧"
_CURRENCY = "$£€¥฿﷼₠₡₢₣₤₥₦₧₨₩₪₫₭₮₯₰₱₲₳₴₵₶₷₸₹₺₻₼₽₾₿"
_DASHES = "—–"
_UNITS = (
    "km km² km³ m m² m³ dm dm² dm³ cm cm² cm³ mm mm² mm³ ha µm nm yd in ft kg g mg µg t lb oz m/s km/h kmh mph hPa Pa mbar mb MB "
    "kb KB gb GB tb TB T G M K %"
)


def _any_of(*texts: str) -> str:
    return f"(?:{'|'.join(map(re.escape, texts))})"


_LONGEST_BACK = max(map(len, (*_UNITS.split(), "US$")))

_FRONT = re.compile(rf"\.\.+|(?:US|C|A)\$|\+(?![0-9])|[{re.escape('§%=' + _DASHES + _MARKS + _QUOTES + _CURRENCY)}]")
_BACK = re.compile(
    rf"(?:['’][sS]|[{re.escape(_DASHES + _MARKS + _QUOTES)}]"
    rf"|(?<=[0-9])(?:\+|{_any_of('US$', 'C$', 'A$', *_CURRENCY)}|{_any_of(*_UNITS.split())})"
    rf"|(?<=°[FfCcKk])\.|(?<=[0-9%²\-+|{re.escape(_MARKS + _QUOTES)}])\.)$"
)
_LETTER = r"[^\W\d_]"
_INSIDE = re.compile(
    r"\.\.+|…"
    r"|(?<=[0-9])[-+*^](?=[0-9-])"
    rf"|(?<={_LETTER}),(?={_LETTER})"
    rf"|(?<=(?:{_LETTER}|[0-9]))(?:[-–—~]|--|---|——)(?={_LETTER})"
    rf"|(?<=(?:{_LETTER}|[0-9]))[:<>=/](?={_LETTER})"
    rf"|(?<=[^\W\d_]|[{re.escape(_QUOTES)}])\.(?=[^\W\d_]|[{re.escape(_QUOTES)}])"
    r"|(?P<symbol>[^\x00-\x7f])"
)
_WEB_ADDRESS = re.compile(
    r"(?:[\w+\-.]{2,}://)?(?:\S+(?::\S*)?@)?"
    r"(?:(?!10(?:\.\d{1,3}){3}|127(?:\.\d{1,3}){3}|169\.254|192\.168|172\.(?:1[6-9]|2\d|3[01])\.)"
    r"(?:[1-9]\d?|1\d\d|2[01]\d|22[0-3])(?:\.(?:1?\d{1,2}|2[0-4]\d|25[0-5])){2}\.(?:[1-9]\d?|1\d\d|2[0-4]\d|25[0-4])"
    r"|(?:(?:[A-Za-z0-9\u00a1-\uffff][A-Za-z0-9\u00a1-\uffff_-]{0,62})?[A-Za-z0-9\u00a1-\uffff]\.)+[^\W\d_A-Z]{2,63})"
    r"(?::\d{2,5})?(?:[/?#]\S*)?"
)


def english_words(text: str) -> list[str]:
    """The words and punctuation marks of a text, in order."""
    return list(itertools.chain.from_iterable(map(words_of, text.split())))


def words_of(piece: str) -> tuple[str, ...]:
    """The words and marks of a piece without white space."""
    return _remembered(piece) if len(piece) <= LONGEST_REMEMBERED else _cut(piece)


def _cut(piece: str) -> tuple[str, ...]:
    if (known := _KNOWN.get(piece)) is not None:
        return known
    if piece.isalpha() and piece.isascii():
        return (piece,)
    front, back = list[str](), list[str]()
    start, end = 0, len(piece)
    while start < end and not _is_known(piece, start, end):
        first = _front(piece, start, end)
        last = _back(piece, first, end)
        if start < first and _is_known(piece, first, end):
            last = end
        elif last < end and _is_known(piece, start, last):
            first = start
        if (start, end) == (first, last):
            break
        if start < first:
            front.append(piece[start:first])
        if last < end:
            back.append(piece[last:end])
        start, end = first, last
    return _joined((*front, *_inside(piece[start:end]), *reversed(back)))


_remembered = functools.lru_cache(maxsize=REMEMBERED)(_cut)


def _is_known(piece: str, start: int, end: int) -> bool:
    return end - start <= _LONGEST_KNOWN and piece[start:end] in _KNOWN


def _front(piece: str, start: int, end: int) -> int:
    """Where the rest begins when a mark came off the beginning; `start` if none does."""
    if found := _FRONT.match(piece, start, end):
        return found.end()
    return start + _is_symbol(piece[start])


def _back(piece: str, start: int, end: int) -> int:
    """Where the rest ends when a mark came off the end; `end` if none does."""
    if start == end:
        return end
    if piece.endswith("..", start, end):
        return start + len(piece[start:end].rstrip("."))
    if found := _BACK.search(piece, max(start, end - _LONGEST_BACK), end):
        return found.start()
    if piece[end - 1] == "." and start < end - 1:
        small = _is_small(piece[end - 2])
        return end - (small or (start < end - 2 and all(map(_is_capital, piece[end - 3 : end - 1]))))
    return end - _is_symbol(piece[end - 1])


def _inside(piece: str) -> Iterable[str]:
    """A piece without marks around it, cut inside."""
    if not piece:
        return ()
    if (known := _KNOWN.get(piece)) is not None:
        return known
    if "." in piece and len(piece) <= LONGEST_ADDRESS and _WEB_ADDRESS.fullmatch(piece):
        return (piece,)
    words, done = list[str](), 0
    for start, end in _cuts(piece):
        words += (piece[done:start], piece[start:end])
        done = end
    return filter(None, (*words, piece[done:]))


def _joined(words: tuple[str, ...]) -> tuple[str, ...]:
    """What was cut but is known as a whole, put together again: the longest first."""
    if len(words) == 1:
        return words
    spans = [
        (length, start)
        for length in range(min(len(words), MOST_PARTS), 1, -1)
        for start in range(len(words) - length + 1)
        if not (piece := "".join(words[start : start + length])).isalpha() and piece in _KNOWN
    ]
    taken: dict[int, int] = {}
    seen = set[int]()
    for length, start in spans:
        if start not in seen and start + length - 1 not in seen:
            taken[start] = length
        seen.update(range(start, start + length))
    joined, at = list[str](), 0
    while at < len(words):
        length = taken.get(at, 0)
        joined += _KNOWN["".join(words[at : at + length])] if length else (words[at],)
        at += length or 1
    return tuple(joined)


def _cuts(piece: str) -> Iterator[tuple[int, int]]:
    for found in _INSIDE.finditer(piece):
        start, end = found.span()
        if found["symbol"]:
            is_cut = _is_symbol(piece[start])
        elif found.group() == ".":
            is_cut = not piece[start - 1].isupper() and not piece[end].islower()
        else:
            is_cut = True
        if is_cut:
            yield start, end


def _is_symbol(character: str) -> bool:
    return not character.isascii() and unicodedata.category(character) == "So"


def _is_small(character: str) -> bool:
    """A letter that is no capital: also those of scripts without capitals."""
    return character.isalpha() and not character.isupper() and not character.istitle()


def _is_capital(character: str) -> bool:
    """A letter that is not small: also those of scripts without capitals."""
    return character.isalpha() and not character.islower()
