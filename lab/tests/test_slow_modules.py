"""While the modules of an experiment are imported, no garbage is collected; afterwards it is."""

import gc

import pytest

from lab.recording import slow_modules


@pytest.fixture
def modules(tmp_path, monkeypatch):
    (tmp_path / "module_that_notes.py").write_text("import gc\nwas_on = gc.isenabled()\n")
    (tmp_path / "module_that_fails.py").write_text("raise ValueError('mine')\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    gc.unfreeze()
    gc.enable()


def test_no_garbage_is_collected_while_modules_are_imported(modules):
    slow_modules.load([("module_that_notes", None)])
    import module_that_notes

    assert not module_that_notes.was_on
    assert gc.isenabled() and gc.get_freeze_count() > 1000


def test_it_is_collected_again_after_a_module_that_fails(modules):
    with pytest.raises(ValueError, match="mine"):
        slow_modules.load([("module_that_fails", None)])
    assert gc.isenabled()


def test_a_user_who_turned_it_off_finds_it_off(modules):
    gc.disable()
    slow_modules.load([("module_that_notes", None)])
    assert not gc.isenabled()
