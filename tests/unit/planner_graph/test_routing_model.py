"""The intent classifier: it ranks, it turns away, it says the same thing twice, and nothing odd breaks it."""

from __future__ import annotations

import math
import random
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner_graph.routing import ScopeRule, TrainingSettings, train
from planner_graph.routing import model as routing_model
from planner_graph.routing.features import Vocabulary

EXAMPLES = [
    ("weather", "will it rain tomorrow"),
    ("weather", "how cold is it outside"),
    ("weather", "is a storm coming this weekend"),
    ("weather", "what is the forecast for friday"),
    ("music", "play some jazz"),
    ("music", "put on my favourite album"),
    ("music", "skip this song"),
    ("music", "turn the volume of the music up"),
    ("money", "what is my account balance"),
    ("money", "transfer fifty euros to savings"),
    ("money", "how much did i spend last month"),
    ("money", "pay my credit card bill"),
]
FOREIGN = ["who wrote hamlet", "book a table for two", "how do i bake bread", "what is seven times nine"]


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("is it going to rain", "weather"),
        ("forecast for the weekend please", "weather"),
        ("play the album again", "music"),
        ("transfer twenty to my savings account", "money"),
        ("PAY MY BILL", "money"),
        ("plya some jaz", "music"),
    ],
)
def test_a_text_finds_its_label_by_words_pieces_and_in_spite_of_typing_errors(text, label):
    ranked = train(EXAMPLES, out_of_scope=FOREIGN).rank(text)
    assert ranked[0].name == label
    assert [each.score for each in ranked] == sorted((each.score for each in ranked), reverse=True)


def test_scores_are_shares_that_leave_room_for_none_of_them():
    for text in ("play some jazz", "who wrote hamlet", "zzz"):
        total = sum(each.score for each in train(EXAMPLES, out_of_scope=FOREIGN).rank(text))
        assert 0 < total < 1


def test_a_text_of_other_words_is_out_of_scope_and_one_of_its_own_words_is_in():
    model = train(EXAMPLES, out_of_scope=FOREIGN)
    assert model.in_scope("what is my account balance")[0]
    inside, confidence = model.in_scope("who painted the mona lisa")
    assert not inside
    assert confidence < 0.1


def test_words_seen_only_out_of_scope_do_not_count_as_known():
    vocabulary = Vocabulary([text for _, text in EXAMPLES], FOREIGN)
    assert vocabulary.features("skip this song").known == 1.0
    assert vocabulary.features("who wrote hamlet").known < 0.4


def test_the_same_examples_give_the_same_model_to_the_last_bit():
    first, second = (train(EXAMPLES, out_of_scope=FOREIGN) for _ in range(2))
    texts = ["play", "rain and money", "", "🎵", "how much"]
    assert [first.assess(text) for text in texts] == [second.assess(text) for text in texts]


def test_many_examples_are_learned_as_few_are(monkeypatch):
    few = train(EXAMPLES, out_of_scope=FOREIGN)
    monkeypatch.setattr(routing_model, "_FEW", 0)
    many = train(EXAMPLES, out_of_scope=FOREIGN)
    for text in ("play some jazz", "rain money", "who wrote hamlet"):
        for one, other in zip(few.rank(text), many.rank(text), strict=True):
            assert one.name == other.name
            assert one.score == pytest.approx(other.score, abs=1e-4)


def test_no_examples_find_everything_out_of_scope():
    for foreign in ((), FOREIGN):
        model = train([], out_of_scope=foreign)
        assert model.rank("anything") == ()
        assert model.in_scope("anything") == (False, 0.0)


def test_one_label_alone_still_tells_its_own_from_others():
    model = train([("music", text) for label, text in EXAMPLES if label == "music"], out_of_scope=FOREIGN)
    assert model.in_scope("play some jazz")[0]
    assert not model.in_scope("who wrote hamlet")[0]


def test_one_example_per_label_is_enough_to_find_it_again():
    words = [f"{a}{b}{c}" for a in "klm" for b in "aeio" for c in "prst"]
    model = train([(word, f"{word} {word[::-1]}") for word in words])
    assert all(model.rank(word)[0].name == word for word in words)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "¿",
        "\x00",
        "\ud800",
        "👩‍👩‍👧‍👦" * 50,
        "ﬁnd",
        "İSTANBUL",
        "עברית",
        "日本語の質問",
        "a\u0300" * 500,
        "\u202eevil\u202c",
        "_" * 9_000,
    ],
)
def test_odd_text_gets_an_answer(text):
    found = train(EXAMPLES, out_of_scope=FOREIGN).assess(text)
    assert len(found.ranked) == 3
    assert all(math.isfinite(each.score) for each in found.ranked)
    assert 0 <= found.confidence <= 1


TRAINED = train(EXAMPLES, out_of_scope=FOREIGN)


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=300))
def test_any_text_gets_finite_shares_whatever_it_is(text):
    found = TRAINED.assess(text)
    assert sum(each.score for each in found.ranked) <= 1 + 1e-9
    assert 0 <= found.confidence <= 1


def test_compatibility_forms_and_case_are_one_word():
    model = train(EXAMPLES)
    assert model.rank("\uff30\uff2c\uff21\uff39 SOME \uff4a\uff41\uff5a\uff5a") == model.rank("play some jazz")


def test_a_text_of_8000_characters_takes_a_moment_and_no_more_is_read():
    model = train(EXAMPLES)
    noise = random.Random(7)
    long = " ".join("".join(noise.choices("abcdefghij", k=7)) for _ in range(1_000))[:8_000]
    started = time.process_time()
    found = model.assess(long)
    assert time.process_time() - started < 0.25
    assert model.assess(long + " play some jazz" * 100) == found


def test_five_thousand_labels_stay_within_memory_and_time_and_each_is_found():
    noise = random.Random(3)
    words = sorted({"".join(noise.choices("bcdfglmnprst", k=3)) + noise.choice("aeiou") * 2 for _ in range(9_000)})[
        :5_000
    ]
    started = time.process_time()
    model = train([(f"label.{word}", f"do the {word} thing") for word in words])
    found = [model.rank(f"please do the {word} thing now", limit=3)[0].name == f"label.{word}" for word in words[::250]]
    assert time.process_time() - started < 20
    assert sum(found) >= 0.9 * len(found)


def test_more_labels_than_training_may_cost_are_compared_by_their_mean():
    cheap = train(EXAMPLES, out_of_scope=FOREIGN, settings=TrainingSettings(max_weights=10))
    assert cheap.rank("play some jazz")[0].name == "music"
    assert cheap.rank("how cold will it be tomorrow")[0].name == "weather"
    assert cheap.in_scope("what is my account balance")[1] > cheap.in_scope("who painted the mona lisa")[1]


def test_the_scope_rule_is_fitted_on_validation_data_and_costs_no_more_than_allowed():
    inside = [
        ("weather", "rain on friday"),
        ("music", "some jazz please"),
        ("money", "my balance"),
        ("money", "pay the bill"),
    ]
    outside = ["who painted this", "bake a cake", "capital of france", "fix my bike"]
    model = train(EXAMPLES).calibrated(inside, outside, max_loss=0.0)
    assert all(model.in_scope(text)[0] for _, text in inside)
    assert not any(model.in_scope(text)[0] for text in outside)
    strict = train(EXAMPLES).calibrated(inside, outside, max_loss=0.25)
    assert sum(strict.in_scope(text)[0] for _, text in inside) == 3


def test_without_validation_data_the_rule_stays_as_it_is():
    model = train(EXAMPLES)
    assert model.calibrated([], ["x"]) is model
    assert model.calibrated([("music", "x")], []) is model


def test_a_rule_never_overflows():
    assert ScopeRule(bias=-1e9).confidence(0.0, 0.0) == 0.0
    assert ScopeRule(bias=1e9).confidence(0.0, 0.0) == 1.0


class _Encoder:
    """Two directions: texts about sound, and all others."""

    def embed(self, texts):
        rows = np.zeros((len(texts), 2), dtype=np.float32)
        for at, text in enumerate(texts):
            rows[at, 0 if any(word in text for word in ("jazz", "album", "song", "music", "symphony")) else 1] = 1
        return rows


def test_embeddings_carry_meaning_that_words_do_not():
    with_meaning = train(EXAMPLES, encoder=_Encoder()).rank("a symphony")
    assert with_meaning[0].name == "music"
    by_words = {each.name: each.score for each in train(EXAMPLES).rank("a symphony")}
    assert with_meaning[0].score > by_words["music"]
