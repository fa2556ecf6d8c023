# Two commands for a fresh machine; README.md spells out what they run.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test

demo: $(VENV)/.demo
	$(BIN)/python demo/render.py
	$(BIN)/python inference_video.py --exp=1 --video=demo/clip.mp4 --overwrite

test: $(VENV)/.test
	$(BIN)/python -m pytest

$(VENV)/.demo: requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --requirement requirements.txt
	touch $@

$(VENV)/.test: requirements.txt requirements-dev.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --requirement requirements-dev.txt
	touch $@
