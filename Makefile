# README.md spells out what these commands run.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test test-all

demo: $(VENV)/.demo
	$(BIN)/python demo/render.py
	$(BIN)/python inference_video.py --exp=1 --video=demo/clip.mp4 --overwrite

# without the tests marked slow; the last lines tell how many they are
test: $(VENV)/.test
	$(BIN)/python -m pytest -m "not slow"

test-all: $(VENV)/.test
	$(BIN)/python -m pytest

$(VENV)/.demo: requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --requirement requirements.txt
	touch $@

$(VENV)/.test: requirements.txt requirements-dev.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --requirement requirements-dev.txt
	touch $@
