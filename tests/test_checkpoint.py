"""Fault drills for checkpoints: whatever happens to the writer or to the files, a complete checkpoint is loaded."""

import errno
import os
import pickle
import resource
import signal
import stat
from pathlib import Path

import pytest
import torch

from nlp_ssl.errors import RunError
from nlp_ssl.training.checkpoint import Checkpoint, flatten_optimizer, load_latest, restore_optimizer, save
from nlp_ssl.utils import atomic
from nlp_ssl.utils.atomic import CheckpointError


def example(step: int) -> Checkpoint:
    values = torch.arange(12.0) + step
    bias = torch.tensor([float(step)], dtype=torch.bfloat16)
    tensors = {
        "net.student": {"encoder.weight": values.reshape(3, 4), "bias": bias},
        "optimizer": {"exp_avg.bias": values / 7, "step.bias": torch.tensor(float(step))},
        "state": {"seen": torch.tensor([True, False]), "count": torch.tensor(step)},
    }
    return Checkpoint(step, tensors, {"seed": step, "name": "run"})


def steps(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def assert_is(found: Checkpoint, step: int) -> None:
    """Exactly what `example(step)` holds, to the bit, and nothing else."""
    wanted = example(step)
    assert (found.step, found.meta, found.tensors.keys()) == (step, wanted.meta, wanted.tensors.keys())
    for group, tensors in wanted.tensors.items():
        assert found.tensors[group].keys() == tensors.keys()
        for name, value in tensors.items():
            assert found.tensors[group][name].dtype == value.dtype
            assert torch.equal(found.tensors[group][name], value), (group, name)


def in_child(action) -> tuple[int, str]:
    """Runs `action` in a real process of its own: how it ended (negative: by a signal) and the error it raised."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        try:
            action()
        except BaseException as error:
            os.write(writer, f"{type(error).__name__}: {error}".encode())
            os._exit(1)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, encoding="utf-8") as pipe:
        message = pipe.read()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), message


# --- what is saved comes back ---


def test_round_trip(tmp_path):
    assert save(tmp_path / "new" / "ckpt", example(3)) == tmp_path / "new" / "ckpt" / "step-3"
    found, messages = load_latest(tmp_path / "new" / "ckpt")
    assert_is(found, 3)
    assert messages == []


def test_tied_views_strided_empty_and_scalar_tensors_survive(tmp_path):
    table = torch.randn(4, 5, requires_grad=True)
    tensors = {"in": table, "out": table, "t": table.t(), "row": table[1], "none": torch.empty(0)}
    tensors["one"] = torch.tensor(2)
    save(tmp_path, Checkpoint(0, {"net": tensors, "empty": {}}, {}))
    found, _ = load_latest(tmp_path)
    assert found.tensors["empty"] == {} and found.tensors["net"].keys() == tensors.keys()
    for name, value in tensors.items():
        assert torch.equal(found.tensors["net"][name], value), name


def test_a_saved_tensor_is_a_copy_of_its_moment(tmp_path):
    checkpoint = example(1)
    save(tmp_path, checkpoint)
    checkpoint.tensors["net.student"]["encoder.weight"].zero_()
    assert_is(load_latest(tmp_path)[0], 1)


def test_the_highest_number_wins_whatever_the_clock_says(tmp_path):
    for step in (9, 10, 100):
        save(tmp_path, example(step), keep=3)
    os.utime(tmp_path / "step-9", (2e9, 2e9))
    assert_is(load_latest(tmp_path)[0], 100)


def test_there_is_nothing_to_load(tmp_path):
    assert load_latest(tmp_path / "absent") is None
    for name in (".tmp-0123", "step-", "step-05", "step-5x", "step--1", "other"):
        (tmp_path / name).mkdir()
    assert load_latest(tmp_path) is None


@pytest.mark.parametrize("bad", ["", "a/b", "../a", ".tmp-a", "a\nb"])
def test_a_group_that_cannot_name_a_file(tmp_path, bad):
    with pytest.raises(ValueError, match="cannot name a file"):
        save(tmp_path, Checkpoint(0, {bad: {}}, {}))
    assert steps(tmp_path) == []


@pytest.mark.parametrize(("step", "keep"), [(-1, 2), (0, 0)])
def test_numbers_out_of_range(tmp_path, step, keep):
    with pytest.raises(ValueError, match="step must be >= 0 and keep >= 1"):
        save(tmp_path, Checkpoint(step, {}, {}), keep=keep)


# --- rotation ---


def test_the_last_ones_and_the_protected_are_kept(tmp_path):
    for step in (2, 4, 6, 8, 10):
        save(tmp_path, example(step), keep=2, protect=frozenset({4}))
    assert steps(tmp_path) == ["step-10", "step-4", "step-8"]


def test_keep_one(tmp_path):
    for step in (1, 2):
        save(tmp_path, example(step), keep=1)
    assert steps(tmp_path) == ["step-2"]


def test_a_damaged_one_does_not_push_out_a_complete_one(tmp_path):
    for step in (1, 2):
        save(tmp_path, example(step))
    flip(tmp_path / "step-2" / "state.safetensors")
    save(tmp_path, example(3), keep=2)
    assert steps(tmp_path) == ["step-1", "step-3"]


def test_later_steps_are_not_touched(tmp_path):
    for step in (7, 8, 3):
        save(tmp_path, example(step), keep=1)
    assert steps(tmp_path) == ["step-3", "step-8"]


def test_the_same_step_is_replaced(tmp_path):
    save(tmp_path, Checkpoint(5, {"net": {"w": torch.zeros(2)}}, {}))
    save(tmp_path, example(5))
    assert steps(tmp_path) == ["step-5"]
    assert_is(load_latest(tmp_path)[0], 5)


# --- damaged files ---


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


FILES = ["manifest.json", "net.student.safetensors", "optimizer.safetensors", "state.safetensors"]


def test_the_list_of_files_is_complete(tmp_path):
    assert steps(save(tmp_path, example(1))) == FILES


@pytest.mark.parametrize("damage", [flip, cut, Path.unlink])
@pytest.mark.parametrize("file", FILES)
def test_a_damaged_checkpoint_is_passed_over_and_said(tmp_path, file, damage):
    for step in (1, 2):
        save(tmp_path, example(step))
    damage(tmp_path / "step-2" / file)
    found, messages = load_latest(tmp_path)
    assert_is(found, 1)
    assert len(messages) == 1 and "SSL31" in messages[0] and "\n" not in messages[0]
    assert str(tmp_path / "step-2" / file) in messages[0]


def test_all_damaged_is_an_error_and_not_a_fresh_start(tmp_path):
    for step in (1, 2):
        flip(save(tmp_path, example(step)) / "net.student.safetensors")
    with pytest.raises(CheckpointError, match="SSL318: no checkpoint in .* is complete.*step-2") as caught:
        load_latest(tmp_path)
    assert caught.value.exit_code == 1 and "\n" not in str(caught.value)


def test_a_checkpoint_under_another_number_is_refused(tmp_path):
    save(tmp_path, example(1))
    (tmp_path / "step-1").rename(tmp_path / "step-2")
    with pytest.raises(CheckpointError, match="holds step 1, not 2"):
        load_latest(tmp_path)


def test_a_file_in_place_of_a_checkpoint_is_passed_over(tmp_path):
    save(tmp_path, example(1))
    (tmp_path / "step-2").write_text("x")
    found, messages = load_latest(tmp_path)
    assert_is(found, 1)
    assert len(messages) == 1 and "SSL310" in messages[0]


def test_tensors_that_were_sealed_but_cannot_be_read(tmp_path):
    save(tmp_path, example(1))
    with atomic.write_dir(tmp_path / "step-2", {"step": 2, "meta": {}}) as folder:
        (folder / "net.safetensors").write_bytes(b"\xff" * 64)
    found, messages = load_latest(tmp_path)
    assert_is(found, 1)
    assert "SSL315: cannot read the tensors" in messages[0]


class Evil:
    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self):
        return (os.mkdir, (str(self.canary),))


@pytest.mark.parametrize("name", ["evil.pkl", "optimizer.bin", "random_states_0.pkl", "state.safetensors"])
def test_a_planted_pickle_is_refused_and_never_runs(tmp_path, name):
    canary = tmp_path / "canary"
    poison = pickle.dumps(Evil(canary))
    folder = tmp_path / "ckpt"
    (save(folder, example(1)) / name).write_bytes(poison)
    with pytest.raises(CheckpointError, match=name):
        load_latest(folder)
    # Even behind a manifest made for it, it is not opened as a pickle.
    with atomic.write_dir(folder / "step-1", {"step": 1, "meta": {}}) as planted:
        (planted / name).write_bytes(poison)
    try:
        load_latest(folder)
    except CheckpointError:
        pass
    assert not canary.exists()
    pickle.loads(poison)
    assert canary.exists(), "the poison itself does not work, so the test shows nothing"


# --- the writer dies ---


def test_a_partial_directory_is_ignored_and_then_cleared(tmp_path):
    save(tmp_path, example(1))
    (tmp_path / ".tmp-dead").mkdir()
    (tmp_path / ".tmp-dead" / "net.student.safetensors").write_text("half")
    found, messages = load_latest(tmp_path)
    assert_is(found, 1)
    assert messages == []
    save(tmp_path, example(2))
    assert steps(tmp_path) == ["step-1", "step-2"]


CALLS = ["fsync", "rename", "chmod", "unlink", "rmdir", "mkdir"]


def die_at(count: int, action) -> tuple[int, str]:
    """Runs `action` in a child that is killed just before its `count`-th call that changes the disk."""

    def run() -> None:
        calls = iter(range(1, 1000))

        def counted(real):
            def call(*args, **kwargs):
                if next(calls) == count:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(*args, **kwargs)

            return call

        for name in CALLS:
            setattr(os, name, counted(getattr(os, name)))
        action()

    return in_child(run)


def test_kill_9_anywhere_in_a_save_leaves_the_old_or_the_new(tmp_path):
    outcomes = []
    for count in range(1, 100):
        folder = tmp_path / str(count)
        for step in (1, 2):
            save(folder, example(step))
        code, message = die_at(count, lambda folder=folder: save(folder, example(3)))
        assert code in (0, -signal.SIGKILL), message
        found, messages = load_latest(folder)
        assert_is(found, found.step)
        assert messages == []
        outcomes.append(found.step)
        save(folder, example(9))
        assert steps(folder) == [f"step-{found.step}", "step-9"], "the next save clears what the dead one left"
        if code == 0:
            break
    assert code == 0 and len(outcomes) > 15, "killed at every point up to the end"
    assert outcomes == sorted(outcomes) and set(outcomes) == {2, 3}, "first always the old one, then always the new"


def test_kill_9_anywhere_in_a_replacement_leaves_the_old_or_the_new(tmp_path):
    outcomes, between = [], 0
    for count in range(1, 100):
        folder = tmp_path / str(count)
        save(folder, Checkpoint(2, {"net": {"w": torch.zeros(3)}}, {"is": "old"}))
        new = Checkpoint(2, {"net": {"w": torch.ones(3)}}, {"is": "new"})
        code, message = die_at(count, lambda folder=folder, new=new: save(folder, new))
        assert code in (0, -signal.SIGKILL), message
        between += not (folder / "step-2").exists()
        found, messages = load_latest(folder)
        assert messages == []
        assert torch.equal(found.tensors["net"]["w"], torch.full((3,), float(found.meta["is"] == "new")))
        outcomes.append(found.meta["is"])
        save(folder, example(9))
        assert steps(folder) == ["step-2", "step-9"]
        if code == 0:
            break
    assert code == 0 and len(outcomes) > 12, "killed at every point up to the end"
    assert between == 1, "killed once between the two renames"
    assert outcomes == sorted(outcomes, reverse=True) and set(outcomes) == {"old", "new"}


# --- the disk refuses ---


def test_a_full_disk_is_said_and_the_older_checkpoint_stays(tmp_path):
    save(tmp_path, example(1))
    big = Checkpoint(2, {"net": {"w": torch.zeros(50_000)}}, {})

    def fill() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        save(tmp_path, big)

    code, message = in_child(fill)
    assert code == 1
    assert message.startswith("RunError: SSL316: no space left to write ") and "\n" not in message
    assert "free space or choose another place" in message
    assert steps(tmp_path) == ["step-1"]
    assert_is(load_latest(tmp_path)[0], 1)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("call", ["fsync", "mkdir", "rename"])
def test_a_disk_that_fills_at_any_call(tmp_path, monkeypatch, call, number):
    save(tmp_path, example(1))

    def full(*args, **kwargs):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, call, full)
    with pytest.raises(RunError, match="SSL316: no space left"):
        save(tmp_path, example(2))
    monkeypatch.undo()
    assert steps(tmp_path) == ["step-1"]
    assert_is(load_latest(tmp_path)[0], 1)


def as_a_plain_user(folder: Path, action) -> tuple[int, str]:
    """Runs `action` in `folder` without the rights of root, which no file mode stops."""

    def run() -> None:
        os.chdir(folder)
        if os.geteuid() == 0:
            os.seteuid(65534)
        action()

    folder.chmod(0o755)
    return in_child(run)


def test_a_read_only_directory_is_said(tmp_path):
    save(tmp_path / "ckpt", example(1))
    (tmp_path / "ckpt").chmod(0o555)
    code, message = as_a_plain_user(tmp_path, lambda: save(Path("ckpt"), example(2)))
    assert code == 1
    assert message.startswith("RunError: SSL317: cannot write ckpt/step-2 (Permission denied): ")
    (tmp_path / "ckpt").chmod(0o755)
    assert steps(tmp_path / "ckpt") == ["step-1"]


@pytest.mark.parametrize("hidden", ["ckpt", "ckpt/step-1", "ckpt/step-1/state.safetensors"])
def test_an_unreadable_checkpoint_is_said(tmp_path, hidden):
    save(tmp_path / "ckpt", example(1))
    (tmp_path / hidden).chmod(0)
    code, message = as_a_plain_user(tmp_path, lambda: load_latest(Path("ckpt")))
    (tmp_path / hidden).chmod(0o755)
    assert code == 1
    assert message.startswith("CheckpointError: SSL31") and "Permission denied" in message and "\n" not in message


def test_modes_follow_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        folder = save(tmp_path, example(1))
    finally:
        os.umask(before)
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o640}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o750


# --- optimizers ---


def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.ModuleDict({"a": torch.nn.Linear(3, 4), "b": torch.nn.Linear(4, 2), "idle": torch.nn.Linear(2, 2)})


def update(net: torch.nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
    torch.manual_seed(seed)
    optimizer.zero_grad()
    net["b"](net["a"](torch.randn(8, 3)).tanh()).square().sum().backward()  # "idle" never gets a gradient
    optimizer.step()


def groups(net: torch.nn.Module) -> tuple[list[dict], list[str]]:
    """Weights and biases apart, so that the order of the groups is not the order of the network."""
    named = sorted(net.named_parameters(), key=lambda item: item[0].endswith("weight"))
    biases, weights = named[:3], named[3:]
    parts = [{"params": [p for _, p in biases], "weight_decay": 0.0}, {"params": [p for _, p in weights]}]
    return parts, [name for name, _ in named]


OPTIMIZERS = {
    "adamw": lambda parts: torch.optim.AdamW(parts, lr=0.01),
    "amsgrad": lambda parts: torch.optim.AdamW(parts, lr=0.01, amsgrad=True, foreach=False),
    "fused": lambda parts: torch.optim.AdamW(parts, lr=0.01, fused=True),
    "momentum": lambda parts: torch.optim.SGD(parts, lr=0.01, momentum=0.9, nesterov=True),
    "sgd": lambda parts: torch.optim.SGD(parts, lr=0.01),
}


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_an_optimizer_goes_on_bit_for_bit(tmp_path, kind):
    net = network()
    parts, names = groups(net)
    optimizer = OPTIMIZERS[kind](parts)
    for seed in range(3):
        update(net, optimizer, seed)
    flat = flatten_optimizer(optimizer, names)
    save(tmp_path, Checkpoint(3, {"net": dict(net.state_dict()), "optimizer": flat}, {}))
    found, _ = load_latest(tmp_path)

    other = network()
    other.load_state_dict(found.tensors["net"])
    parts, names = groups(other)
    resumed = OPTIMIZERS[kind](parts)
    restore_optimizer(resumed, names, found.tensors["optimizer"])
    again = flatten_optimizer(resumed, names)
    assert again.keys() == flat.keys()
    assert all(torch.equal(again[key], flat[key]) and again[key].dtype == flat[key].dtype for key in flat)
    for seed in (10, 11):
        update(net, optimizer, seed)
        update(other, resumed, seed)
    for name, value in net.state_dict().items():
        assert torch.equal(other.state_dict()[name], value), name


def stepped(kind: str = "adamw") -> tuple[torch.optim.Optimizer, list[str], dict[str, torch.Tensor]]:
    net = network()
    parts, names = groups(net)
    optimizer = OPTIMIZERS[kind](parts)
    update(net, optimizer, 0)
    return optimizer, names, flatten_optimizer(optimizer, names)


def test_entries_bear_the_names_of_their_parameters():
    optimizer, _, flat = stepped()
    weight = optimizer.param_groups[1]["params"][0]
    assert torch.equal(flat["exp_avg.a.weight"], optimizer.state[weight]["exp_avg"])
    assert {key for key in flat if key.endswith("a.weight")} == {
        "exp_avg.a.weight", "exp_avg_sq.a.weight", "step.a.weight", "AdamW.a.weight"}  # fmt: skip
    assert [key for key in flat if key.endswith("idle.weight")] == ["AdamW.idle.weight"]


def test_order_of_the_parameters_does_not_matter():
    _, names, flat = stepped()
    net = network()
    optimizer = torch.optim.AdamW(net.parameters())
    restore_optimizer(optimizer, [name for name, _ in net.named_parameters()], flat)
    assert torch.equal(optimizer.state[net["b"].bias]["exp_avg"], flat["exp_avg.b.bias"])


def test_every_missing_entry_is_an_error_and_changes_nothing():
    _, _, flat = stepped()
    for lost in flat:
        parts, names = groups(network())
        fresh = OPTIMIZERS["adamw"](parts)
        with pytest.raises(CheckpointError, match="SSL319"):
            restore_optimizer(fresh, names, {key: value for key, value in flat.items() if key != lost})
        assert not fresh.state_dict()["state"]


@pytest.mark.parametrize("entry", ["exp_avg.c.weight", "step", "momentum_buffer.a.weight", "SGD.a.weight", "x.idle.a"])
def test_a_foreign_entry_is_an_error(entry):
    optimizer, names, flat = stepped()
    with pytest.raises(CheckpointError, match="SSL319"):
        restore_optimizer(optimizer, names, {**flat, entry: torch.zeros(4, 3)})


def test_the_state_of_another_optimizer_is_an_error():
    optimizer, names, _ = stepped("adamw")
    _, _, flat = stepped("momentum")
    with pytest.raises(CheckpointError, match="for AdamW has"):
        restore_optimizer(optimizer, names, flat)


def test_another_shape_is_an_error():
    optimizer, names, flat = stepped()
    with pytest.raises(CheckpointError, match=r"exp_avg.a.weight of shape \[3, 4\] instead of \[4, 3\]"):
        restore_optimizer(optimizer, names, {**flat, "exp_avg.a.weight": torch.zeros(3, 4)})


def test_the_restored_state_does_not_share_memory():
    optimizer, names, flat = stepped()
    kept = {key: value.clone() for key, value in flat.items()}
    parts, _ = groups(network())
    fresh = OPTIMIZERS["adamw"](parts)
    restore_optimizer(fresh, names, kept)
    for state in fresh.state.values():
        state["exp_avg"].fill_(7)
    assert all(torch.equal(kept[key], flat[key]) for key in flat)


@pytest.mark.parametrize("names", [[], ["a"] * 6, ["a", "b"]])
def test_names_must_fit(names):
    optimizer, _, flat = stepped()
    with pytest.raises(ValueError, match="6 distinct parameter names"):
        flatten_optimizer(optimizer, names)
    with pytest.raises(ValueError, match="6 distinct parameter names"):
        restore_optimizer(optimizer, names, flat)


def test_state_that_is_not_a_tensor_is_refused():
    optimizer, names, _ = stepped()
    optimizer.state[optimizer.param_groups[0]["params"][0]]["rms"] = 0.5
    with pytest.raises(CheckpointError, match="keeps 'rms' of .* as a float"):
        flatten_optimizer(optimizer, names)
