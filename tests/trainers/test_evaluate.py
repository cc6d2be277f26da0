"""Scores on held-out samples: weighted by what each batch holds, and exact only when the words are."""

from dataclasses import replace

import pytest
from tiny_runs import robot_sample, text_sample, train_tiny

from schemas.chat import Message, Text
from schemas.mixes import Sample
from trainers.checkpoint import Trained, load_trained
from trainers.evaluate import evaluate
from trainers.speaking import speak


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    home = tmp_path_factory.mktemp("evaluate")
    train_tiny(home)
    return load_trained(home / "final")


def test_each_source_gets_its_own_losses(trained: Trained) -> None:
    samples = [robot_sample(0), text_sample(1), robot_sample(2), robot_sample(4)]
    arms, questions = evaluate(trained, samples, batch_size=2, answer_at_most=1, max_tokens=2)
    assert (arms.source, arms.num_samples, arms.num_answered) == ("arms", 3, 1)
    assert (questions.source, questions.num_samples, questions.action_loss) == ("questions", 1, None)
    assert arms.action_loss is not None
    assert arms.action_loss > 0
    assert arms.text_loss > 0
    assert evaluate(trained, samples, batch_size=2, answer_at_most=1, max_tokens=2) == [arms, questions]


def test_batches_do_not_change_the_text_loss(trained: Trained) -> None:
    samples = [text_sample(i, images=i % 2) for i in range(3)]
    (one,), (all_at_once,) = (evaluate(trained, samples, batch_size=n, answer_at_most=0) for n in (1, 3))
    assert one.text_loss == pytest.approx(all_at_once.text_loss, rel=1e-4)


def test_an_answer_counts_when_it_is_what_the_model_says_word_for_word(trained: Trained) -> None:
    sample = text_sample(3)
    said = speak(trained, sample.messages[:1], sample.images, max_tokens=40)

    def annotated(words: str) -> Sample:
        answer = Message(role="assistant", parts=(Text(words),), supervised=True)
        return replace(sample, messages=(sample.messages[0], answer))

    right, wrong = (evaluate(trained, [annotated(words)], max_tokens=40)[0] for words in (said.words, "another"))
    assert right.num_exact == int(said.finished), "an answer that never ends is not exact"
    assert wrong.num_exact == 0
    cut = evaluate(trained, [annotated(said.words)], max_tokens=0)[0]
    assert cut.num_exact == 0
