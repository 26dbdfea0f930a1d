"""What a stream shows, joined, is what becomes of the whole text."""

from hypothesis import given
from hypothesis import strategies as st

from agentstream.consumers.redaction import Redactor

ALPHABET = "ab/"
plain = st.lists(st.text(ALPHABET, min_size=8, max_size=11), max_size=3)
# Some that begin with another: of those the longer counts, however late its end comes.
secrets = st.tuples(plain, st.text(ALPHABET, max_size=3)).map(lambda drawn: drawn[0] + [s + drawn[1] for s in drawn[0]])


@st.composite
def texts(draw: st.DrawFn, known: list[str]) -> list[str]:
    words = st.one_of(st.text(ALPHABET, max_size=6), st.sampled_from(known or ["a"]), st.text(max_size=3))
    text = "".join(draw(st.lists(words, max_size=8)))
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=6)))
    return [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]


@given(st.data(), secrets)
def test_pieces_give_what_the_whole_gives_however_it_is_cut(data: st.DataObject, known: list[str]) -> None:
    redactor = Redactor(known)
    pieces = data.draw(texts(known))
    stream = redactor.stream()
    shown = [*map(stream.feed, pieces), stream.finish()]
    assert "".join(shown) == redactor.text("".join(pieces))


@given(st.data(), secrets)
def test_no_secret_is_left(data: st.DataObject, known: list[str]) -> None:
    redactor = Redactor(known)
    clean = redactor.text("".join(data.draw(texts(known))))
    assert not any(secret in clean for secret in known)
