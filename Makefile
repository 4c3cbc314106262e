# The front door: `make help`. One line per target; what a target does is in pipelines/commands/<verb>.py.
.DEFAULT_GOAL := help
PYTHON ?= python3.11
EXP ?=
DATA ?=
RUNTIME ?=
SWEEP ?=
RUN ?=
SEEDS ?=
BUNDLE ?=
CKPT ?=
FORMAT ?=
INIT ?=
ARGS ?=
FUZZ_SECONDS ?= 300

READY := .venv/ready
TRELLIS := .venv/bin/trellis
CHOICE = $(if $(EXP),experiment=$(EXP)) $(if $(DATA),dataset=$(DATA)) $(if $(RUNTIME),runtime=$(RUNTIME)) $(if $(SWEEP),sweep=$(SWEEP)) $(if $(INIT),init=$(INIT)) $(if $(RUN),run=$(RUN)) $(if $(FORMAT),formats=[$(FORMAT)]) $(if $(SEEDS),seeds=$(SEEDS)) $(if $(BUNDLE),bundle=$(BUNDLE)) $(if $(CKPT),checkpoint=$(CKPT)) $(ARGS)

.PHONY: setup lock data preview train finetune choose weights launch evaluate predict export serve register sweep reproduce bundle compare bisect sync list show check tune profile doctor ui completion test test-slow test-chaos test-fuzz test-matrix lint format golden bench bench-data bench-train bench-waits bench-pretrained bench-export bench-serve help

$(READY): requirements.lock bootstrap.lock
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --require-hashes -r bootstrap.lock
	.venv/bin/uv pip sync --quiet --compile-bytecode --python .venv/bin/python --require-hashes requirements.lock
	.venv/bin/uv pip install --quiet --python .venv/bin/python --no-deps --no-build-isolation --editable .
	touch $(READY)

setup: $(READY)           ## install the locked environment into .venv; every target does it when needed

lock: $(READY)            ## renew requirements.lock and bootstrap.lock from pyproject.toml
	.venv/bin/uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-annotate --no-header --quiet --upgrade -o requirements.lock
	echo uv | .venv/bin/uv pip compile - --universal --generate-hashes --no-emit-index-url --no-emit-find-links --no-annotate --no-header --quiet --upgrade -o bootstrap.lock

data: $(READY)            ## build records:                      make data DATA=digit_scenes
	$(TRELLIS) data $(CHOICE)

preview: $(READY)         ## draw data, or what a model sees:  make preview EXP=retinanet
	$(TRELLIS) preview $(CHOICE)

train: $(READY)           ## train and evaluate:                 make train EXP=retinanet
	$(TRELLIS) train $(CHOICE)

finetune: $(READY)        ## adapt pretrained weights:           make finetune EXP=retinanet_lite0 DATA=voc ARGS="dataset.root=…"
	$(TRELLIS) finetune $(CHOICE)

choose: $(READY)          ## choose a network, with reasons:     make choose ARGS="task=detection images=300 max_params_m=10"
	$(TRELLIS) choose $(CHOICE)

weights: $(READY)         ## list, verify, fetch, add weights:   make weights ARGS="fetch=<card>"
	$(TRELLIS) weights $(ARGS)

launch: $(READY)          ## train with several workers:         make launch EXP=resnet ARGS=workers=2
	$(TRELLIS) launch $(CHOICE)

evaluate: $(READY)        ## evaluate a run's best checkpoint:   make evaluate RUN=<run id or directory>
	$(TRELLIS) evaluate $(CHOICE)

predict: $(READY)         ## show pictures to a run's model:     make predict RUN=<run> ARGS="images=<folder>"
	$(TRELLIS) predict $(CHOICE)

export: $(READY)          ## write files that run elsewhere:     make export RUN=<run> FORMAT=saved_model,tflite_int8
	$(TRELLIS) export $(CHOICE)

serve: $(READY)           ## answer requests with pictures:      make serve RUN=<run> ARGS=port=5001
	$(TRELLIS) serve $(CHOICE)

register: $(READY)        ## put a model into MLflow's registry: make register RUN=<run> ARGS=name=<model>
	$(TRELLIS) register $(CHOICE)

sweep: $(READY)           ## search for settings:                make sweep EXP=resnet SWEEP=learning_rate
	$(TRELLIS) sweep $(CHOICE)

reproduce: $(READY)       ## make a run or a figure again:       make reproduce RUN=<run>   EXP=resnet SEEDS=3   BUNDLE=<file>
	$(TRELLIS) reproduce $(CHOICE)

bundle: $(READY)          ## put a run into one file:            make bundle RUN=<run>
	$(TRELLIS) bundle $(CHOICE)

compare: $(READY)         ## compare two runs:                   make compare RUN=<run> ARGS="against=<run>"
	$(TRELLIS) compare $(CHOICE)

bisect: $(READY)          ## find where two runs part:           make bisect RUN=<run> ARGS="against=<run>"
	$(TRELLIS) bisect $(CHOICE)

sync: $(READY)            ## send MLflow what it missed:         make sync RUN=<run>
	$(TRELLIS) sync $(CHOICE)

list: $(READY)            ## list names; published recipes:      make list ARGS="published task=detection sort=value"
	@$(TRELLIS) list $(ARGS)

show: $(READY)            ## print a composed configuration:     make show EXP=retinanet
	$(TRELLIS) show $(CHOICE)

check: $(READY)           ## validate before anything expensive: make check EXP=retinanet DATA=coco
	$(TRELLIS) check $(CHOICE)

tune: $(READY)            ## measure the fastest threads here:   make tune EXP=retinanet
	$(TRELLIS) tune $(CHOICE)

profile: $(READY)         ## find where time goes:               make profile EXP=retinanet
	$(TRELLIS) profile $(CHOICE)

doctor: $(READY)          ## report versions, devices, disk, and what is wrong
	$(TRELLIS) doctor $(CHOICE)

ui: $(READY)              ## open the MLflow UI on localhost:    make ui ARGS=port=5001
	$(TRELLIS) ui $(CHOICE)

completion: $(READY)      ## print completion for a shell:    eval "$(make -s completion ARGS=bash)"
	@$(TRELLIS) completion $(or $(ARGS),bash)

test: $(READY)            ## run the fast tests (minutes, no network, no accelerator)
	.venv/bin/python -m pytest -q -n 2 --dist worksteal -m "not slow" $(ARGS)

test-slow: $(READY)       ## run whole trainings, kills, resumes
	.venv/bin/python -m pytest -q -n 2 --dist worksteal --durations 15 -m slow $(ARGS)

test-chaos: $(READY)      ## kill each task's run 5 times, mostly at random moments
	CHAOS_KILLS=5 .venv/bin/python -m pytest -q -m slow tests/training/test_chaos.py -k killed $(ARGS)

test-fuzz: $(READY)       ## test with generated input for FUZZ_SECONDS (300)
	.venv/bin/python -m tests.fuzzing $(FUZZ_SECONDS)

test-matrix: $(READY)     ## try every official experiment that is not measured yet, and renew docs/catalogue.md
	.venv/bin/python -m tests.matrix $(ARGS)

lint: $(READY)            ## check format and types, as CI does
	.venv/bin/ruff format --check pipelines tasks tests benchmarks
	.venv/bin/ruff check pipelines tasks tests benchmarks
	.venv/bin/mypy

format: $(READY)          ## repair the format
	.venv/bin/ruff format pipelines tasks tests benchmarks
	.venv/bin/ruff check --fix pipelines tasks tests benchmarks

golden: $(READY)          ## renew tests/golden, and print what changed
	GOLDEN=renew .venv/bin/python -m pytest -q -s -m "slow or not slow" tests/training/test_golden.py tests/data/test_encoders.py tests/tasks/test_encode.py tests/reproduction/test_published.py::test_the_page_lists_every_drift $(ARGS)

bench: $(READY)           ## measure all of it against the official tools, beside the last record (40 min)
	.venv/bin/python -m benchmarks $(ARGS)

bench-data: $(READY)      ## measure builds against create_coco_tf_record
	.venv/bin/python -m benchmarks.data $(ARGS)

bench-train: $(READY)     ## measure training against official/vision/train.py
	.venv/bin/python -m benchmarks.train $(ARGS)

bench-pretrained: $(READY) ## measure what pretrained weights add: make bench-pretrained ARGS="bccd=<folder> fashion=<folder>"
	.venv/bin/python -m benchmarks.pretrained $(ARGS)

bench-waits: $(READY)     ## measure the short commands, and where a sweep's trial spends its time
	.venv/bin/python -m benchmarks.waits $(ARGS)

bench-export: $(READY)    ## export each experiment in each format, and renew docs/exports.md
	.venv/bin/python -m benchmarks.exports $(ARGS)

bench-serve: $(READY)     ## ask a served run 200 times:         make bench-serve RUN=<run> ARGS="--pictures photos"
	.venv/bin/python -m benchmarks.serving $(if $(RUN),run=$(RUN)) $(ARGS)

help:                     ## print this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## */  \1\t/' | expand -t 16
	@echo; echo "variables: EXP DATA RUNTIME SWEEP RUN FORMAT SEEDS BUNDLE ARGS; ARGS are Hydra overrides: ARGS=\"trainer.train_steps=50 seed=3\""
