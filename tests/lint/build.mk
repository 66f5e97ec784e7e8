# SPDX-License-Identifier: GPL-2.0-or-later

## make lint            the checks that need no build; `tests/lint/run CHECK`
## make format          applies clang-format to all sources
.PHONY: lint format
lint: $(GENERATED)
	@tests/lint/run

format:
	@{ git ls-files '*.[ch]'; git ls-files -o --exclude-standard '*.[ch]'; } | \
		sort -u | xargs clang-format -i
