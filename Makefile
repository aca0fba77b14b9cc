# Every target sets .venv up first; that takes minutes once, then no time (see scripts/setup.sh).
# PYTHON=... chooses the interpreter.

bin := .venv/bin
all_extras := dev sim train robometer viz docs scale ray
# The tests of one file stay in one process: they share what is slow to make.
parallel := -n 2 --dist loadfile

.PHONY: help demo test test-slow test-all attack lint style types page docs format smoke constraints clean

help:
	@echo "make demo         label the SO-101 dataset that comes with the project; see demo-output/"
	@echo "make test         the quick tests"
	@echo "make test-slow    the others: simulation, training, a Hub, the built wheel"
	@echo "make test-all     both"
	@echo "make attack       every attack that docs/reliability.md counts, with its count"
	@echo "make lint         ruff, pyright and, where npx is, ESLint; as in CI"
	@echo "make docs         build the site into build/site; a warning fails"
	@echo "make format       let ruff rewrite what it can"
	@echo "make smoke        build sdist and wheel, try the wheel in a fresh environment"
	@echo "make constraints  pin the versions again (needs uv)"
	@echo "make clean        remove what these targets made, .venv included"

demo:
	@scripts/setup.sh
	$(bin)/lerobot-topreward demo --output demo-output

test:
	@scripts/setup.sh dev train
	$(bin)/python -m pytest $(parallel) -m "not slow"

test-slow:
	@scripts/setup.sh $(all_extras)
	$(bin)/python -m pytest $(parallel) -m slow -rs

test-all:
	@scripts/setup.sh $(all_extras)
	$(bin)/python -m pytest $(parallel) -rs

attack:
	@scripts/setup.sh $(all_extras)
	$(bin)/python -m pytest $(parallel) -q -rs tests/attack

lint: style types page

style:
	@scripts/setup.sh dev
	$(bin)/ruff check .
	$(bin)/ruff format --check .

# Type checkers do not follow the folder mapping in pyproject.toml, so they check an installed copy.
types:
	@scripts/setup.sh $(all_extras)
	rm -rf build
	$(bin)/python -m pip install --quiet --no-deps --no-build-isolation --target build/types .
	$(bin)/pyright

page:
	@if npx --yes eslint@9 --version >/dev/null 2>&1; then npx --yes eslint@9 lerobot_topreward/report/page; \
	else echo "no ESLint (npx and the npm registry): the report's JavaScript is not linted"; fi

docs:
	@scripts/setup.sh $(all_extras)
	rm -rf build
	$(bin)/python -m pip install --quiet --no-deps --no-build-isolation --target build/types .
	NO_MKDOCS_2_WARNING=1 $(bin)/mkdocs build --quiet

format:
	@scripts/setup.sh dev
	$(bin)/ruff check --fix .
	$(bin)/ruff format .

smoke:
	@scripts/setup.sh dev
	scripts/smoke.sh

constraints:
	uv pip compile --universal --python-version 3.12 --all-extras --no-annotate --no-header \
		--upgrade --output-file constraints.txt pyproject.toml

clean:
	rm -rf .venv build dist demo-output *.egg-info .pytest_cache .ruff_cache
