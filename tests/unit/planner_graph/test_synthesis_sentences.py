"""Cutting a stream of text: nothing is lost, nothing is cut inside a link."""

from hypothesis import given
from hypothesis import strategies as st

from planner_graph.synthesis.sentences import MAX_HELD_CHARS, Sentences


def cut(*pieces):
    sentences = Sentences()
    out = [found for piece in pieces for found in sentences.feed(piece)]
    return [*out, sentences.rest()]


def test_sentences_are_let_go_one_by_one():
    assert cut("One. T", "wo! Three") == ["One. ", "Two! ", "Three"]


def test_a_decimal_point_and_a_number_after_a_full_stop_do_not_cut():
    assert cut("It is 2.5 now. 3 of them. Good") == ["It is 2.5 now. 3 of them. ", "Good"]


def test_a_source_behind_the_full_stop_stays_with_its_sentence():
    assert cut("It fell 2%. [mix] Then. More") == ["It fell 2%. [mix] Then. ", "More"]


def test_a_link_is_never_cut():
    assert cut("See [the. Report](http://x. y) now. Then") == ["See [the. Report](http://x. y) now. ", "Then"]
    assert cut("![a](htt", "p://evil.example/?q=1)\n", "b") == ["![a](http://evil.example/?q=1)\n", "b"]


def test_a_blank_line_ends_an_open_bracket():
    assert cut("a [b\n\nc") == ["a [b\n", "\n", "c"]


def test_text_without_end_is_let_go_at_a_blank():
    text = "[" + "word " * 600
    pieces = cut(text)
    assert "".join(pieces) == text
    assert len(pieces) > 1
    assert max(map(len, pieces)) <= MAX_HELD_CHARS
    assert all(piece.endswith(" ") for piece in pieces[:-1])


@given(st.lists(st.text(alphabet="ab.!?[]()<> \n1", max_size=60), max_size=40))
def test_nothing_is_lost_and_the_cut_does_not_depend_on_the_pieces(pieces):
    whole = "".join(pieces)
    assert "".join(cut(*pieces)) == whole
    assert [piece for piece in cut(*pieces) if piece] == [piece for piece in cut(*whole) if piece]
