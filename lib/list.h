/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * list.h - intrusive doubly linked circular list.
 */
#ifndef LIB_LIST_H
#define LIB_LIST_H 1

#include "lib/util.h"

/* A list's head, or an element's link. */
struct list {
    struct list *prev, *next;
};

static inline void
list_init(struct list *list)
{
    list->prev = list->next = list;
}

static inline bool
list_is_empty(const struct list *list)
{
    return list->next == list;
}

/* Inserts 'elem' just before 'before'. */
static inline void
list_insert(struct list *before, struct list *elem)
{
    elem->prev = before->prev;
    elem->next = before;
    before->prev->next = elem;
    before->prev = elem;
}

static inline void
list_push_back(struct list *list, struct list *elem)
{
    list_insert(list, elem);
}

static inline void
list_push_front(struct list *list, struct list *elem)
{
    list_insert(list->next, elem);
}

/* Removes 'elem' and leaves it as an empty list, so that removing it again
 * does no harm. */
static inline void
list_remove(struct list *elem)
{
    elem->prev->next = elem->next;
    elem->next->prev = elem->prev;
    list_init(elem);
}

/* The first or last link of a list that is not empty. */
static inline struct list *
list_front(const struct list *list)
{
    return list->next;
}

static inline struct list *
list_back(const struct list *list)
{
    return list->prev;
}

static inline struct list *
list_pop_front(struct list *list)
{
    struct list *front = list->next;

    list_remove(front);
    return front;
}

#define LIST_ENTRY__(LINK, ITER, MEMBER) \
    CONTAINER_OF(LINK, __typeof__(*(ITER)), MEMBER)

#define LIST_FOR_EACH(ITER, MEMBER, LIST)                 \
    for (ITER = LIST_ENTRY__((LIST)->next, ITER, MEMBER); \
         &(ITER)->MEMBER != (LIST);                       \
         ITER = LIST_ENTRY__((ITER)->MEMBER.next, ITER, MEMBER))

/* 'ITER' may be removed and freed in the body; 'NEXT' may not. */
#define LIST_FOR_EACH_SAFE(ITER, NEXT, MEMBER, LIST)               \
    for (ITER = LIST_ENTRY__((LIST)->next, ITER, MEMBER);          \
         (NEXT = LIST_ENTRY__((ITER)->MEMBER.next, ITER, MEMBER)), \
        &(ITER)->MEMBER != (LIST);                                 \
         ITER = NEXT)

#endif /* lib/list.h */
