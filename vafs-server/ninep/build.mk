$(call library,vafs-ninep,$(addprefix vafs-server/ninep/,server.c session.c \
	request.c ops-session.c ops-tree.c ops-io.c fid.c lock.c pool.c))
