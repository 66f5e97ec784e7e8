$(call library,vafs-view,vafs-server/view/view.c)
