"""Measure how much it helps to tell a model the wind, the diffusivity and the source of a tracer beforehand.

A tracer on a periodic square is carried by a wind, diffuses, and is fed by a source whose strength goes up and down:

    dc/dt + u dc/dx + v dc/dy = nu (d2c/dx2 + d2c/dy2) + s(x, y) cos(omega t)

u, v, nu and s differ from one trajectory to the next. Every Fourier mode has an exact solution. Networks of one size learn from
the same windows: one is told nothing; one is told u, v and nu; one is told these and the source. For each number of frames of
history, the script prints the error of each network on trajectories that none was trained on: mean and range over seeds.

    python examples/told.py                    # about a quarter of an hour on two idle cores
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import numpy as np
import torch

from matey import MateyConfig, MateyModel
from matey.data import Mixture, TrajectorySet, micro_batches, read_windows, spread_windows
from matey.metrics import nrmse

SIZE, FRAMES, STEP, OMEGA = 32, 21, 0.05, 6.0
TRAIN, TEST, LEADS = 64, 16, (1, 4)
PARAMETERS, SOURCE = ("u", "v", "nu"), ("source",)
TOLD = {"nothing": ((), ()), "u, v, nu": (PARAMETERS, ()), "u, v, nu and source": (PARAMETERS, SOURCE)}


def tracers(number: int, seed: int) -> TrajectorySet:
    """Return so many trajectories of the tracer."""
    random = np.random.default_rng(seed)
    wind = random.uniform(-1, 1, (number, 2))
    nu = 10 ** random.uniform(-3, -1.5, number)
    k = 2 * np.pi * np.fft.fftfreq(SIZE, 1 / SIZE)
    ky, kx = k[:, None], k[None, :]
    smooth = 1 / (1 + (kx**2 + ky**2) / (2 * np.pi) ** 2) ** 1.25
    c, s = (smooth * np.fft.fft2(random.normal(size=(number, SIZE, SIZE))) for _ in range(2))
    s[:, 0, 0] = 0
    decay = nu[:, None, None] * (kx**2 + ky**2) + 1j * (kx * wind[:, 0, None, None] + ky * wind[:, 1, None, None])
    forced = s / (decay**2 + OMEGA**2)
    times = STEP * np.arange(FRAMES)
    frames = [
        forced * (decay * np.cos(OMEGA * t) + OMEGA * np.sin(OMEGA * t)) + (c - forced * decay) * np.exp(-decay * t)
        for t in times
    ]
    source = np.fft.ifft2(s).real[:, None] * np.cos(OMEGA * times)[:, None, None]
    return TrajectorySet.from_arrays(
        "tracer",
        {"tracer": np.fft.ifft2(np.stack(frames, axis=1)).real},
        spacing=(1 / SIZE, 1 / SIZE),
        boundary=("periodic", "periodic"),
        time_step=STEP,
        parameters={"u": wind[:, 0], "v": wind[:, 1], "nu": nu},
        given={"source": source},
    )


def trained(data: TrajectorySet, history: int, told: str, seed: int, steps: int) -> MateyModel:
    """Train a network that is told so much."""
    parameters, given = TOLD[told]
    torch.manual_seed(seed)
    model = MateyModel(
        MateyConfig.from_size(
            "micro",
            fields=("tracer", *given),
            given=given,
            parameters=parameters,
            history=history,
            tokens={"set": "uniform", "patches": [(1, 1, 8, 8)]},
        )
    )
    mixture = Mixture([data.with_given(given)], [range(data.num_trajectories)], [1.0], history, max(LEADS), seed)
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.95), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, steps)
    model.train()
    for (batch,) in micro_batches(mixture, 0, steps, micro_batch=8, accumulation=1, rank=0, num_ranks=1):
        model(batch).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    return model


def errors(model: MateyModel, data: TrajectorySet, history: int) -> Iterator[float]:
    """Yield the NRMSE at each lead."""
    for lead in LEADS:
        windows = spread_windows(data, range(data.num_trajectories), history, lead, 64)
        (batch,) = read_windows([data], windows, history)
        yield nrmse(model.predict(batch), batch.known_target).mean().item()


def main() -> None:
    """Train and print a line for each kind of network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--history", type=int, nargs="+", default=[1, 4])
    args = parser.parse_args()
    train, test = tracers(TRAIN, 0), tracers(TEST, 1)
    for history in args.history:
        for told in TOLD:
            found = np.array(
                [
                    [*errors(trained(train, history, told, seed, args.steps), test, history)]
                    for seed in range(args.seeds)
                ]
            )
            each = "   ".join(
                f"lead {lead}: {values.mean():.4f} ({values.min():.4f} to {values.max():.4f})"
                for lead, values in zip(LEADS, found.T, strict=True)
            )
            print(f"history {history}, told {told:<20} {each}", flush=True)


if __name__ == "__main__":
    main()
