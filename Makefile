# Everything here works on a fresh machine with Python 3.10+ and make. TORCH may name another build of PyTorch, and
# TORCHVISION the release that belongs to it: make demo TORCH="torch --index-url <a wheel index>" TORCHVISION=torchvision
PYTHON ?= python3
TORCH ?= torch==2.13.0
TORCHVISION ?= torchvision==0.28.0
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test check lint bench clean

# PyTorch comes first, and torchvision and spandrel without their own requirement of it: a second, larger build of
# PyTorch would be installed otherwise. The pack runs with spandrel 0.4.0, benchmarks and tests compare with 0.4.2's FDAT.
$(VENV)/installed: requirements-cli.txt requirements-tools.txt Makefile
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(TORCH)
	$(BIN)/python -m pip freeze | grep '^torch==' > $(VENV)/torch-constraint.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps $(TORCHVISION) 'spandrel>=0.4.2'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(VENV)/torch-constraint.txt \
		einops safetensors psutil typing_extensions -r requirements-cli.txt -r requirements-tools.txt
	touch $@

$(VENV)/installed-test: $(VENV)/installed requirements-test.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(VENV)/torch-constraint.txt \
		-r requirements-test.txt
	touch $@

# Upscale the sample picture with the bundled checkpoint.
demo: $(VENV)/installed
	$(BIN)/python -m tools.demo

# All tests; those marked comfyui run where COMFYUI_ROOT or ~/ComfyUI is a checkout of ComfyUI.
test: $(VENV)/installed-test
	$(BIN)/python -m ruff check .
	$(BIN)/python -m pytest -q -rs

# pyright follows no __path__ (see fdat_dense_iso.py), but links.
check: test
	$(BIN)/python -m ruff format --check .
	mkdir -p $(VENV)/pyright && ln -sfn ../.. $(VENV)/pyright/fdat_dense_iso
	$(BIN)/python -m pyright

# Measures everything that docs/benchmarks.md shows and writes that page: on an otherwise idle machine, an hour.
FIGURES := runs/benchmarks
bench: $(VENV)/installed-test
	$(BIN)/python -m benchmarks.fdat speed --presets tiny medium large --rounds 11 --json $(FIGURES)/fdat-speed.json
	$(BIN)/python -m benchmarks.fdat speed --sizes 768x1024 --tiles --json $(FIGURES)/fdat-tiles.json
	$(BIN)/python -m benchmarks.fdat speed --presets tiny medium --dtype bfloat16 --rounds 11 \
		--json $(FIGURES)/fdat-speed-bf16.json
	$(BIN)/python -m benchmarks.fdat exactness --json $(FIGURES)/fdat-exactness.json
	$(BIN)/python -m benchmarks.fdat memory --sizes 256x256 512x512 512x768 --tiles --json $(FIGURES)/fdat-memory.json
	$(BIN)/python -m benchmarks.fdat memory --presets tiny medium large --drop-output \
		--sizes 128x128 192x320 256x256 200x500 512x512 --json $(FIGURES)/fdat-plan.json
	$(BIN)/python -m benchmarks.fdat memory --scale 2 --sizes 4096x4096 --map-dtype float16 \
		--json $(FIGURES)/fdat-memory-4096.json
	$(BIN)/python -m benchmarks.fdat growth --sizes 512x512 2048x2048 --repeats 2 \
		--json $(FIGURES)/fdat-growth.json
	$(BIN)/python -m benchmarks.dense_iso speed --json $(FIGURES)/dense-iso-speed.json
	$(BIN)/python -m benchmarks.dense_iso train samples --json $(FIGURES)/dense-iso-train.json
	$(BIN)/python -m benchmarks.upscale --json $(FIGURES)/upscale.json
	$(BIN)/python -m benchmarks.collect $(FIGURES)

clean:
	rm -rf $(VENV) demo
