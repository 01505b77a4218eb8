"""The recipes in docs/ run as they stand there, each on its own, where its library is there."""

import re
import warnings
from pathlib import Path

import pytest

DOCS = Path(__file__).parent.parent / "docs"
RECIPES = {
    f"{page.stem}: {title}": block
    for page in sorted(DOCS.glob("*.md"))
    for title, block in re.findall(
        r"^## (.*?)$[^#]*?^```python\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE
    )
}


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_a_recipe_runs(recipe, capsys, monkeypatch):
    monkeypatch.setenv("HYPEROPT_FMIN_SEED", "0")
    for library in ("lightgbm", "xgboost", "keras"):
        if re.search(rf"^(import|from) {library}\b", recipe, re.MULTILINE):
            pytest.importorskip(library)
    namespace = {"__name__": "__main__"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the libraries' own
        exec(compile(recipe, "recipe", "exec"), namespace)
    assert re.search(r"^final results +\d+$", capsys.readouterr().out, re.MULTILINE)
