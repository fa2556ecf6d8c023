# README.md spells out what these commands run.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test test-all fuzz kills segments hours

demo: $(VENV)/.demo
	$(BIN)/python demo/render.py
	$(BIN)/python inference_video.py --exp=1 --video=demo/clip.mp4 --overwrite

# without the tests marked slow; the last lines tell how many they are
test: $(VENV)/.test
	$(BIN)/python -m pytest -m "not slow"

test-all: $(VENV)/.test
	$(BIN)/python -m pytest

# 3,000 damaged inputs through the whole commands, about an hour: make fuzz CASES=200 SEED=5 for another share
fuzz: $(VENV)/.test
	$(BIN)/python tests/long/fuzz.py --cases $(or $(CASES),3000) --seed $(or $(SEED),0)

# runs of inference_video.py that signals and full disks end at random moments, some minutes: make kills KILLS=12 SEED=5
kills: $(VENV)/.test
	$(BIN)/python tests/long/kills.py --kills $(or $(KILLS),60) --disks $(or $(DISKS),30) --seed $(or $(SEED),0)

# a stream of two hours with sound, some minutes: make hours HOURS=0.5
hours: $(VENV)/.test
	$(BIN)/python tests/long/hours.py --hours $(or $(HOURS),2)

# one job of --segments that is killed many times, full disks, two runs at once, the cost: make segments KILLS=10
segments: $(VENV)/.test
	$(BIN)/python tests/long/long_work.py --kills $(or $(KILLS),30) --seed $(or $(SEED),0)

$(VENV)/.demo: requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --requirement requirements.txt
	touch $@

$(VENV)/.test: requirements.txt requirements-dev.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --requirement requirements-dev.txt
	touch $@
