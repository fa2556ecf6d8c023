# README.md spells out what these commands run.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test test-all fuzz kills segments hours performance

demo: $(VENV)/.demo
	$(BIN)/python demo/render.py
	$(BIN)/python inference_video.py --exp=1 --video=demo/clip.mp4 --overwrite

# in two processes, without the tests marked slow; the last lines show their number
test: $(VENV)/.test
	$(BIN)/python -m pytest -n 2 -m "not slow"

test-all: $(VENV)/.test
	$(BIN)/python -m pytest -n 2

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

# the figures of docs/performance.md, on an idle machine, about ten minutes: make performance VIDEOS="a.mp4 b.mp4" PAPER=DIR
# (VIDEOS: clips for the whole loop; PAPER: weights of the paper's network)
performance: $(VENV)/.test
	$(BIN)/python benchmark/testtime.py --compare baseline stream stream,bf16 --runs 5
	test -z "$(PAPER)" || $(BIN)/python benchmark/testtime.py --runs 5 --size 640x480 1280x720 \
		--compare model=$(PAPER),baseline model=$(PAPER),stream model=$(PAPER),stream,bf16
	$(BIN)/python benchmark/testtime.py --compare stream baseline --sweep --plot docs/cost.png
	$(BIN)/python benchmark/testtime.py --compare baseline stream --size 1280x720 --runs 7 --profile
	CXX=/bin/false TORCH_EXTENSIONS_DIR=/tmp/none $(BIN)/python benchmark/testtime.py --compare baseline stream --runs 5
	for video in $(or $(VIDEOS),demo/clip.mp4); do $(BIN)/python benchmark/loop.py --frames 24 --video $$video || exit 1; done
	$(BIN)/python benchmark/memory.py --rate 1 --size 640 360

$(VENV)/.demo: requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --requirement requirements.txt
	touch $@

$(VENV)/.test: requirements.txt requirements-dev.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --requirement requirements-dev.txt
	touch $@
