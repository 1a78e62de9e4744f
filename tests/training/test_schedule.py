from types import SimpleNamespace

import pytest
import torch

from tff.training.schedule import Plateau


def train(accuracies, **options):
    """Learning rates after each validation, until training stops."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1e-4)
    trainer = SimpleNamespace(
        sanity_checking=False,
        state=SimpleNamespace(fn="fit"),
        callback_metrics={},
        optimizers=[optimizer],
        should_stop=False,
    )
    schedule, rates = Plateau(**options), []
    for accuracy in accuracies:
        trainer.callback_metrics["val/accuracy"] = torch.tensor(accuracy)
        schedule.on_validation_end(trainer, None)
        rates.append(optimizer.param_groups[0]["lr"])
        if trainer.should_stop:
            break
    return rates


def test_flat_accuracy_drops_twice_and_stops():
    rates = train([0.5] * 100)
    # The first validation sets the best; five more without a rise drop the rate; anew after that.
    assert [rates[i] for i in (4, 5, 10, 11)] == pytest.approx([1e-4, 1e-5, 1e-5, 1e-6])
    assert len(rates) == 18
    assert rates[-1] == pytest.approx(1e-7)


def test_smaller_rises_do_not_count():
    assert train([0.5 + 0.0009 * (i > 0) for i in range(6)])[-1] == pytest.approx(1e-5)
    assert train([0.5 + 0.0011 * i for i in range(30)])[-1] == pytest.approx(1e-4)


def test_after_a_drop_twice_the_rise_is_required():
    after = [0.6 + 0.0015 * (i > 0) for i in range(6)]
    assert train([0.5] * 6 + after)[-1] == pytest.approx(1e-6)


def test_state_goes_through_a_checkpoint():
    schedule = Plateau()
    schedule.best, schedule.waited, schedule.drops = 0.7, 3, 1
    again = Plateau()
    again.load_state_dict(schedule.state_dict())
    assert (again.best, again.waited, again.drops) == (0.7, 3, 1)


def test_unknown_metric_is_named():
    for monitor in ("val/f1", "val/loss"):  # the larger, the better
        with pytest.raises(ValueError, match=rf"schedule\.monitor={monitor}: expected one of val/"):
            Plateau(monitor)


def test_an_unknown_accuracy_is_no_rise_and_no_wait():
    assert train([0.5] + [float("nan")] * 20) == pytest.approx([1e-4] * 21)
