# authkey: what there is to do with the tree. `make demo` and `make test` set up
# what they miss; the rest expects Go only.

GO          ?= go
VERSION     ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
STATICCHECK  = honnef.co/go/tools/cmd/staticcheck@v0.8.2
FUZZTIME    ?= 30s
LDFLAGS      = -s -w -X main.version=$(VERSION)

.PHONY: all build demo test test-fast setup lint unit fuzz bench soak storm packages release clean

all: build

build:
	CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=auto -ldflags '$(LDFLAGS)' -o bin/ ./cmd/...

# The main job on real mail, in a temporary folder: DNS, Authentication Servers,
# milters and private Postfixes; then two domains that authenticate each other.
demo: build
	$(GO) run ./internal/demo -milter bin/authkey-milter -server bin/authkey-server

# Everything: vet, staticcheck, unit and fuzz-corpus tests under the race
# detector, the end-to-end tests on real Postfix and real resolvers, and those of the
# packages, which build the programs as a release does.
test: setup lint unit

# The real programs that the tests run against, and a C compiler for the race
# detector.
setup:
	$(GO) run ./internal/setup

lint:
	@files=$$(gofmt -l $$(git ls-files '*.go')); test -z "$$files" || { echo "gofmt: $$files"; exit 1; }
	$(GO) vet ./...
	$(GO) run $(STATICCHECK) ./...

# Tests wait more than they compute: three packages at a time keep two cores busy, those
# first that take longest. The time limit ends what hangs. vet is lint's.
unit:
	CGO_ENABLED=1 $(GO) test -race -vet=off -p 3 -timeout 40m ./internal/packagetest ./internal/e2e ./...

# A quick check while working: no root, no network, no mail system or other program but Go
# needs to be there, and nothing is installed. Without the race detector. Every package and
# every test but those below; under a minute on two cores once all is compiled.

# Packages left out:
#   demo, doctor, e2e, storm, testmta   start Postfix and Sendmail, mostly as root
#   mtaconf                             asks postconf(1), Postfix's own
#   packagetest                         builds packages and boots containers, as root
FAST_WITHOUT = demo doctor e2e storm testmta mtaconf packagetest

# Tests left out, by what they need:
#   root, to give files and sockets to other users
FAST_SKIP  = TestActedKeysAct TestListenUnix TestReach TestPlaceFollowsNoLink TestReplaceKeepsModeAndOwner \
             TestResolve TestLockBelongsToTheFolder TestSecretFileMode TestWhatTheServiceHas
#   root, to mount a file system, and to make a network of many addresses
FAST_SKIP += TestSecretOnAReadOnlyMount TestNobodyTakesAllConnectionsFromManyAddresses
#   unbound and dnsmasq; other programs that read From fields (Python, Perl, Node, Dovecot)
FAST_SKIP += TestDnsmasq TestUnbound TestRealResolvers TestReaders

none  =
blank = $(none) $(none)
any   = ($(subst $(blank),|,$(strip $(1))))$$

# Tests wait more than they compute, so four packages run at a time.
test-fast:
	@CGO_ENABLED=0 $(GO) test -vet=off -p 4 -timeout 5m -skip '^$(call any,$(FAST_SKIP))' \
	  $$($(GO) list ./... | grep -vE '/internal/$(call any,$(FAST_WITHOUT))')

# Each fuzz target for FUZZTIME. The corpora run as plain tests in `make test`.
fuzz:
	@set -e; for pkg in $$($(GO) list ./...); do \
	  for target in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz' || true); do \
	    echo "== $$pkg $$target"; \
	    $(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 5x $$pkg; \
	  done; \
	done

# What the milter costs, beside others, with targets: docs/performance.md. It
# installs what it compares with. A quarter of an hour, on a machine with nothing else
# to do.
bench: build
	$(GO) run ./internal/bench

# A million messages, half of them with a fault: about five minutes.
soak: build
	$(GO) run ./internal/bench soak

# A thousand kills of milter, servers, MTA and tools under load, with bad
# configurations, failing DNS and full disks: five to ten minutes on each MTA. What
# was heard is compared with what was delivered: docs/robustness.md.
storm: build
	$(GO) run ./internal/storm -mta postfix
	$(GO) run ./internal/storm -mta sendmail

# deb and rpm of both programs for this machine, in dist: packaging/README.md.
packages:
	$(GO) run ./packaging/build -version '$(VERSION)' -out dist

# For amd64 and arm64, with checksums and bills of materials.
release:
	$(GO) run ./packaging/build -version '$(VERSION)' -out dist -arch amd64,arm64 -release

clean:
	rm -rf bin dist
