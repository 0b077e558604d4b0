"""Rules as optimizers of torch in trainers that people have: each trains, writes a checkpoint, and resumes with the same bits.

An optional job: ``pip install -e '.[trainers]'`` brings accelerate, Lightning and Transformers; without them these are skipped.
"""

import warnings

import numpy as np
import pytest

import xopt

torch = pytest.importorskip("torch", reason="torch is not installed")

from xopt.backends import torch_optim  # noqa: E402 - it imports torch

OURS = {name: torch_optim.of(rule) for name, rule in xopt.RULES.items()}
everyone = pytest.mark.parametrize("make", OURS.values(), ids=OURS)

pytestmark = pytest.mark.filterwarnings("default")  # of other libraries


def data():
    draw = np.random.default_rng(5)
    x = torch.from_numpy(draw.standard_normal((24, 3)).astype(np.float32))
    return x, x @ torch.tensor([[1.0], [-2.0], [0.5]])


def net():
    torch.manual_seed(3)
    return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1))


def same(one, other):
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(x, y) for x, y in pairs)


def steps_of(optimizer):
    """The counts of its parameters: those of a run that was resumed are of the whole run."""
    return {entry["step"] for entry in optimizer.state_dict()["state"].values()}


@everyone
def test_accelerate(make, tmp_path):
    accelerate = pytest.importorskip("accelerate", reason="accelerate is not installed")

    def run(steps, count, saved=None, resumed=None):
        accelerator = accelerate.Accelerator(cpu=True)
        model, optimizer, loader = accelerator.prepare(
            model := net(),
            make(model.parameters(), lr=0.02),
            torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*data()), 4),
        )
        schedule = accelerator.prepare(torch.optim.lr_scheduler.ExponentialLR(optimizer.optimizer, 0.9))
        if resumed:
            accelerator.load_state(resumed)
        for i, (x, y) in enumerate(loader):
            if i in steps:
                optimizer.zero_grad()
                accelerator.backward(((model(x) - y) ** 2).mean())
                accelerator.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                schedule.step()
        assert steps_of(optimizer) == {count}
        if saved:
            accelerator.save_state(saved)
        return model

    whole = run(range(6), count=6)
    run(range(3), count=3, saved=str(tmp_path))
    assert same(whole, run(range(3, 6), count=6, resumed=str(tmp_path)))
    assert not same(whole, net())


@everyone
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true"])
def test_lightning(make, precision, tmp_path):
    lightning = pytest.importorskip("lightning", reason="lightning is not installed")

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = net()

        def training_step(self, batch, batch_idx):  # noqa: ARG002 - Lightning asks for it
            x, y = batch
            return ((self.net(x) - y) ** 2).mean()

        def configure_optimizers(self):
            optimizer = make(self.parameters(), lr=0.02)
            schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def run(epochs, resumed=None):
        module = Module()
        trainer = lightning.Trainer(
            accelerator="cpu",
            devices=1,
            max_epochs=epochs,
            precision=precision,
            gradient_clip_val=1.0,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*data()), 8)
        trainer.fit(module, loader, ckpt_path=resumed)
        assert steps_of(trainer.optimizers[0]) == {3 * epochs}
        return module, trainer

    whole, _ = run(4)
    _, trainer = run(2)
    path = tmp_path / "half.ckpt"
    trainer.save_checkpoint(path)
    resumed, _ = run(4, str(path))
    assert same(whole, resumed)
    assert not same(whole.net, net().to(next(whole.net.parameters()).dtype))


@everyone
def test_transformers(make, tmp_path):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    pytest.importorskip("accelerate", reason="accelerate, which Transformers' Trainer takes, is not installed")

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net()

        def forward(self, x, labels):
            found = self.net(x)
            return {"loss": ((found - labels) ** 2).mean(), "logits": found}

    x, y = data()
    rows = [{"x": a, "labels": b} for a, b in zip(x, y, strict=True)]

    def run(resumed=None):
        model = Model()
        arguments = transformers.TrainingArguments(
            str(tmp_path), max_steps=6, save_steps=3, per_device_train_batch_size=4, report_to=[], use_cpu=True, disable_tqdm=True
        )
        trainer = transformers.Trainer(model, arguments, train_dataset=rows, optimizer_cls_and_kwargs=(make, {"lr": 0.02}))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trainer.train(resume_from_checkpoint=resumed)
        assert steps_of(trainer.optimizer) == {6}
        return model

    whole = run()
    resumed = run(str(tmp_path / "checkpoint-3"))
    assert same(whole, resumed)
    assert not same(whole.net, net())
