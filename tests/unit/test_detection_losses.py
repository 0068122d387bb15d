"""The record of a training's losses."""

import math

import pytest
import torch

from gen4det.core.errors import InputError
from gen4det.detection.losses import Losses


def filled(count: int, start: int = 0, losses: Losses | None = None) -> Losses:
    losses = losses or Losses()
    for value in range(start, start + count):
        losses.add(
            {
                "loss_mask": torch.tensor(float(value)),
                "loss": torch.tensor(2.0 * value),
                "acc": torch.tensor(9),
            }
        )
    return losses


def test_the_sum_comes_first_and_what_is_no_loss_is_left_out():
    losses = filled(2)
    assert losses.table() == (["iteration", "loss", "loss_mask"], [[1, 0, 0], [2, 2, 1]])
    assert losses.latest() == {"loss": 2.0, "loss_mask": 1.0}


def test_a_long_training_is_averaged_over_equal_stretches():
    header, rows = filled(1500).table()
    assert len(rows) == 500
    assert rows[0] == [3, pytest.approx(2.0), pytest.approx(1.0)]
    assert rows[-1][0] == 1500


def test_state_restores_everything():
    first = filled(7)
    restored = filled(6, start=7, losses=Losses(first.state()))
    assert restored.table() == filled(13).table() and len(restored) == 13


def test_means_leave_out_iterations_that_lack_a_loss(tmp_path):
    losses = Losses()
    for value in range(1500):  # rows of three iterations
        values = {"loss": torch.tensor(1.0), "loss_box": torch.tensor(2.0)}
        if value % 3 == 1 and value > 2:
            values["loss_mask"] = torch.tensor(float(value))
        losses.add(values)
    losses = Losses(losses.state())
    header, rows = losses.table()
    assert header == ["iteration", "loss", "loss_box", "loss_mask"]
    assert math.isnan(rows[0][3]) and rows[1] == [6, 1, 2, 4] and rows[2] == [9, 1, 2, 7]
    assert losses.latest() == {"loss": 1.0, "loss_box": 2.0}
    losses.write(tmp_path)
    assert (
        (tmp_path / "losses.csv")
        .read_text()
        .startswith("iteration,loss,loss_box,loss_mask\n3,1,2,\n6,1,2,4\n")
    )


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_divergence_is_noticed_before_it_is_saved(bad):
    losses = filled(3)
    losses.add({"loss": torch.tensor(bad), "loss_mask": torch.tensor(0.0)})
    with pytest.raises(InputError, match="not finite in iteration 4"):
        losses.state()


def test_table_and_figure_are_written(tmp_path):
    filled(5).write(tmp_path)
    assert (tmp_path / "losses.csv").read_text().startswith("iteration,loss,loss_mask\n1,0,0\n2,2,1\n")
    assert (tmp_path / "losses.png").read_bytes().startswith(b"\x89PNG")
