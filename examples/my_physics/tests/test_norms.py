from matey import MateyConfig, MateyModel
from matey.config import FinetuneSection
from matey.config.schema import FINETUNE_MODES


def test_of_the_blocks_only_norms_are_trained():
    model = MateyModel(MateyConfig(["temperature"], {"patches": [[1, 1, 8, 8]]}, width=24, num_blocks=2))
    choose = FINETUNE_MODES["norms"]
    choose(model, FinetuneSection(train="norms"))
    trained = {name for name, parameter in model.blocks.named_parameters() if parameter.requires_grad}
    assert trained and all("norm" in name for name in trained)
    assert all(parameter.requires_grad for parameter in model.cells_after.parameters())
