# Nothing is needed first but Python >= 3.11 and make.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
NEW_ENOUGH := 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else f"Flux needs Python 3.11 or newer; this is {v[0]}.{v[1]}: run make PYTHON=/path/to/python3.11")'

# Where `make install` puts things: a folder of its own for each release, since running tasks go on with the one that
# they were started from; and links to the newest.
PREFIX  ?= /usr/local
RELEASE ?= $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)-$(shell date -u +%Y%m%d.%H%M%S)
LIB     := $(PREFIX)/lib/fluxd/$(RELEASE)
SHARE   := $(PREFIX)/share/fluxd
UNITS   := $(PREFIX)/lib/systemd/system

.PHONY: run test check sim planted bench install clean

run: $(STAMP)
	@$(BIN)/fluxd --dags etc/dags

test: $(STAMP)
	$(BIN)/pytest tests --ignore=tests/bench

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/pytest tests/test_tidy.py

sim: $(STAMP)
	$(BIN)/python -m tests.sim --seeds $(or $(N),20000) $(if $(SEED),--start $(SEED))

# Forty bugs put in on purpose, one after the other: who catches each?
planted: $(STAMP)
	$(BIN)/python -m tests.planted

bench: $(STAMP)
	$(BIN)/python -m tests.bench

install:
	@$(PYTHON) -c $(NEW_ENOUGH)
	umask 022 && $(PYTHON) -m venv --clear $(DESTDIR)$(LIB)
	umask 022 && $(DESTDIR)$(LIB)/bin/pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt '.[embedded]'
	@# Scripts and traces name the place where it is going to lie.
	sed -i '1s#$(DESTDIR)$(LIB)/#$(LIB)/#' $$(grep -lI '^#!$(DESTDIR)$(LIB)/' $(DESTDIR)$(LIB)/bin/*)
	umask 022 && $(DESTDIR)$(LIB)/bin/python -m compileall -q -s '$(DESTDIR)' -p / $(DESTDIR)$(LIB)/lib
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(SHARE)/drop-ins $(DESTDIR)$(UNITS)
	ln -sfn $(LIB)/bin/fluxd $(LIB)/bin/fluxctl $(DESTDIR)$(PREFIX)/bin/
	install -m 644 -D systemd/fluxd.sysusers $(DESTDIR)$(PREFIX)/lib/sysusers.d/fluxd.conf
	install -m 644 -D systemd/fluxd.tmpfiles $(DESTDIR)$(PREFIX)/lib/tmpfiles.d/fluxd.conf
	install -m 644 systemd/drop-ins/* $(DESTDIR)$(SHARE)/drop-ins/
	install -m 644 docs/systemd.md etc/fluxd.toml $(DESTDIR)$(SHARE)/
	for unit in fluxd fluxd-runner; do \
	  sed 's#@FLUX@#$(LIB)#; s#@SHARE@#$(SHARE)#' systemd/$$unit.service > $(DESTDIR)$(UNITS)/$$unit.service && \
	  chmod 644 $(DESTDIR)$(UNITS)/$$unit.service || exit 1; done
	@echo "Installed. As root: systemd-sysusers fluxd.conf && systemd-tmpfiles --create fluxd.conf && systemctl daemon-reload && systemctl enable --now fluxd"
	@echo "(an upgrade: systemctl daemon-reload && systemctl restart fluxd; see $(SHARE)/systemd.md)"

clean:
	rm -rf $(VENV)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c $(NEW_ENOUGH)
	@echo "Making the virtual environment in $(VENV) (once; about half a minute) …"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[embedded,test]'
	@touch $@
