# Everything here works on a fresh machine with Python 3.10+ and make. tools/setup.py installs; TORCH may name another
# build of PyTorch than its default, and TORCHVISION the release that belongs to it:
#     make demo TORCH="torch --index-url <a wheel index>" TORCHVISION=torchvision
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test check lint bench clean

$(VENV)/installed: requirements-cli.txt requirements-tools.txt tools/setup.py
	TORCH="$(TORCH)" TORCHVISION="$(TORCHVISION)" $(PYTHON) tools/setup.py

$(VENV)/installed-test: $(VENV)/installed requirements-test.txt
	TORCH="$(TORCH)" TORCHVISION="$(TORCHVISION)" $(PYTHON) tools/setup.py --tests

# Upscale the sample picture with the bundled checkpoint.
demo: $(VENV)/installed
	$(BIN)/python -m tools.demo

# All tests; those marked comfyui run where COMFYUI_ROOT or ~/ComfyUI is a checkout of ComfyUI.
test: $(VENV)/installed-test
	$(BIN)/python -m ruff check .
	$(BIN)/python -m pytest -q -rs -n 2 --dist loadfile

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
