"""Names of our own, of scripts and of installed packages, and what is said of those that cannot be used."""

import sys

import pytest

from matey.registry import Registry, RegistryError

OWN = {"floor": "math:floor", "ceil": "math:ceil"}


@pytest.fixture
def rounding():
    """A registry of ways to round; each test has one that has not yet looked for packages."""
    return Registry("rounding", "matey.roundings", OWN)


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Install a package of one module as pip leaves it: the module, and a folder of metadata with its entry points."""

    def install(package, source, *points):
        (tmp_path / f"{package}.py").write_text(source)
        metadata = tmp_path / f"{package}-1.0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        (metadata / "entry_points.txt").write_text("\n".join(["[matey.roundings]", *points, ""]))
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, package, raising=False)

    yield install
    for path in tmp_path.glob("*.py"):
        sys.modules.pop(path.stem, None)


def test_names_of_packages_come_after_our_own_and_are_imported_on_use(rounding, install):
    install("coarse", "def tens(x): return round(x, -1)", "tens = coarse:tens")
    with pytest.raises(RegistryError, match=r"no rounding 'ten'; there are floor, ceil, tens\. Did you mean 'tens'\?"):
        rounding["ten"]
    assert list(rounding) == ["floor", "ceil", "tens"] and rounding.check("tens") == "tens"
    assert "coarse" not in sys.modules
    assert rounding["tens"](128) == 130 and rounding["ceil"](1.5) == 2
    assert [thing(27.5) for _, thing in rounding.items()] == [27, 28, 30]


def test_a_package_that_cannot_be_imported_is_named_in_a_sentence(rounding, install):
    install("broken", "import nothing_of_that_name", "tens = broken:tens", "hundreds = math:hundreds")
    with pytest.raises(RegistryError, match="'tens' of the package broken .* imported .ModuleNotFoundError: No module"):
        rounding["tens"]
    with pytest.raises(RegistryError, match="'hundreds' of the package broken .* cannot be imported .AttributeError"):
        rounding["hundreds"]


def test_what_is_of_another_type_is_refused(rounding, install):
    install("constant", "TENS = 10", "tens = constant:TENS")
    with pytest.raises(RegistryError, match="'tens' of the package constant .* must be of type Callable, got int"):
        rounding["tens"]
    with pytest.raises(RegistryError, match="The rounding 'ten' must be of type Callable, got int"):
        rounding.register("ten")(10)


def test_a_package_that_takes_a_name_of_ours_is_refused_where_names_are_listed(rounding, install):
    install("coarse", "def ceil(x): return 10", "ceil = coarse:ceil")
    with pytest.raises(RegistryError, match="'ceil' of the package coarse .* has a name that is taken already"):
        rounding.check("no_such")


def test_a_script_registers_by_a_decorator_and_may_run_a_definition_again(rounding):
    for step in (10, 100):

        @rounding.register("coarse")
        def coarse(x, step=step):
            return x // step * step

        assert rounding["coarse"](256) == 256 // step * step
    with pytest.raises(RegistryError, match="The name 'coarse' of a rounding is taken already"):
        rounding.register("coarse")(round)


def test_a_reserved_name_is_refused_from_scripts_and_packages(install):
    reserving = Registry("rounding", "matey.roundings", OWN, reserved=("result",))
    with pytest.raises(RegistryError, match="The name 'result' of a rounding is taken"):
        reserving.register("result")(round)
    install("coarse", "def tens(x): return round(x, -1)", "result = coarse:tens")
    with pytest.raises(RegistryError, match="rounding 'result' of the package coarse .* has a name that is taken"):
        list(reserving)
