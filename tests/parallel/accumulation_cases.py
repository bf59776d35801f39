"""The gradient's norm with one and three equal micro-batches, and the type of messages; whole_cases.py starts it."""

from matey.config import TrainSection
from matey.parallel.engine import build_engine, take_step
from matey.train.loss import LossScale, training_loss
from tests.support.models import make_batch, make_model

BF16 = {"bf16": {"enabled": True}, "data_types": {"grad_accum_dtype": "fp32"}}
# Small buckets, so that there are several.
OVERLAPPED = {"overlap_comm": True, "reduce_bucket_size": 2000}
ENGINES = {
    "bf16, stage 1": {"zero_optimization": {"stage": 1}, **BF16},
    "bf16, stage 2": {"zero_optimization": {"stage": 2}, **BF16},
    "bf16, stage 3": {"zero_optimization": {"stage": 3}, **BF16},
    "stage 1, overlapped": {"zero_optimization": {"stage": 1, **OVERLAPPED}},
    "stage 2, overlapped": {"zero_optimization": {"stage": 2, **OVERLAPPED}},
}


def norms(config: dict, accumulation: int) -> tuple[list[float], str]:
    """The norms of two steps, and the type in which gradients add up over ranks; stages 2 and 3 keep it with the optimizer."""
    train = TrainSection(steps=9, micro_batch=1, accumulation=accumulation)
    engine = build_engine(make_model().float().train(), train, config)
    batch, found = make_batch(num_samples=1), []
    for _ in range(2 * accumulation):
        loss, _ = training_loss(engine([batch]), engine.module.sequence_group, {batch.system: LossScale()})
        engine.backward(loss)
        found.append(take_step(engine))
    of_messages = getattr(engine.optimizer, "communication_data_type", engine.communication_data_type)
    engine.destroy()
    return [norm.item() for norm in found if norm is not None], str(of_messages)
