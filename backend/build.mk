# The supervisor.
$(call program,xenliftd,backend/xenliftd.c backend/supervisor.c \
	backend/supervisor-store.c backend/supervisor-worker.c \
	backend/supervisor-ctl.c backend/xenbus.c,hv lift,-lxenstore -ljansson)
