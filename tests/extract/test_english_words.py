"""Words are cut where spaCy's English tokenizer cuts them, and nothing of a text is lost between them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.extract.english_words import LONGEST_REMEMBERED, _remembered, english_words, words_of

# What spaCy 3.8.18 makes of these pieces, as it answered: marks come off, what is known stays whole.
CUT_BY_SPACY = r"""
do n't
Do n’t
could n't 've
can not
gon na
y' all
it 's
its
I 'm
I m
we 're
were
well
he 'd 've
o'clock
ma'am
'em
'cause
rock'n'roll
dogs '
John 's
JOHN 'S
U.S.
U.S.A. ,
e.g. ,
i.e.
Mr.
Mrs. )
Ph.D.
Inc. ,
end .
END .
A.B
a.b .
( see
x. )
" quoted , "
'' quoted ''
` code `
well - known
2 - year - old
state - of - the - art
re - use .
--option
foo -- bar
a — b
1990–1995
and/or
w/o
km / h
10 km
5 kg ,
3.5 GB
100 %
$ 5
US$ 20
20 $
£ 3.50
€ 9
+1
+ x
3 + 4
3 - 4
2 * 3
1,000
1,000.5
3.14
10:30
a : b
http://example.org/a?b=c
www.example.com ,
user@example.com
example.org .
127.0.0.1
8.8.8.8
5 pm
12 a.m.
:)
(:
;-)
:-(
<3
text :)
):
[ :]
> > >
= =
a = b
a==b
x < y
foo.bar
foo . Bar
Foo . Bar
name.split(' . ')[-1 ]
foo(bar )
foo_bar
_ _ init__(self ):
self.x[0 ] :
{ " a " :
# tag
@user
C++
c #
\n
...
wait ...
wait ... what
… and
“ Hello , ”
‘ so ’
« oui »
37 ° C .
37 ° N
25 ° F
★ ★ ★
a ★ b
naïve
Émile . Zola
你好 。
再见 ！
v.v
T2 T
WMP54 G
i d.
"""


@pytest.mark.parametrize("cut", CUT_BY_SPACY.strip().splitlines())
def test_a_piece_is_cut_as_spacy_cuts_it(cut: str) -> None:
    assert words_of(cut.replace(" ", "")) == tuple(cut.split())


PIECES = st.text(st.sampled_from("aAzZéß字0179.,:;!?'’\"()[]{}<>-–—…/=+*&#$€%°★@_|\\"), min_size=1, max_size=12)


@given(
    st.lists(
        PIECES | st.sampled_from(["don't", "e.g.", "U.S.", "cannot", ":-)", "5pm", "well-known", "http://a.org/b?c=d"]),
        max_size=8,
    )
)
def test_words_are_all_of_the_text_but_its_white_space(pieces: list[str]) -> None:
    text = "\n".join(pieces)
    assert "".join(english_words(text)) == "".join(pieces)
    assert all(english_words(text))
    assert english_words(text) == [word for piece in pieces for word in words_of(piece)]


def test_long_pieces_are_not_kept_in_memory() -> None:
    before = _remembered.cache_info().currsize
    assert english_words("q" * (LONGEST_REMEMBERED + 1) + "-") == ["q" * (LONGEST_REMEMBERED + 1) + "-"]
    assert _remembered.cache_info().currsize == before
