/* SPDX-License-Identifier: Apache-2.0 */
/*
 * internal.h - the structures of a shard, shared by the files of this folder only.
 *
 * Everything here belongs to one shard's thread unless a comment says otherwise.
 *
 *   client  a session, by client id; outlives connections if it is durable
 *   link    a connection after its CONNECT; points to its client until it is closed
 *   slot    an answer that waits for its turn or for the store
 *   ticket  what the store has to keep before answers may leave
 */
#ifndef NOCTULE_SHARD_INTERNAL_H
#define NOCTULE_SHARD_INTERNAL_H

#include "routing/match_cache.h"
#include "routing/message.h"
#include "routing/shares.h"
#include "routing/subscribers.h"
#include "server/base/timer_wheel.h"
#include "server/codec/ack.h"
#include "server/codec/frame.h"
#include "server/codec/publish.h"
#include "server/codec/subscribe.h"
#include "server/net/loop.h"
#include "server/post/post.h"
#include "server/shard/lodge.h"
#include "server/shard/shard.h"

#include <assert.h>
#include <pthread.h>

/* Limits of a turn. */
#define TURN_READ_BYTES (256u * 1024u) /* from one connection */
#define TURN_JOBS       512            /* copies handed to sessions by paused fan-outs, */
#define TURN_MAIL       1024           /* by mail of other shards, */
#define TURN_SOCKETS                                                                               \
    512 /* and packets and their copies from our own connections; what is left is passed on */
#define READY_ENOUGH 256u /* connections for more than a turn: then few events are asked for */
#define EVENTS_LEAST 16
#define LINK_SHARE   512 /* of these, for one connection before others are served */
#define TURN_FLUSH   512 /* touched connections before they are written */
#define TURN_TIMERS  4096
#define TURN_ANSWERS 4096u /* of the store */
#define TURN_SUBS    1024  /* subscriptions removed of departing clients */
#define MAILBOX_HIGH                                                                               \
    65536u /* items waiting in a target's mailbox before its publishers are paused */

#define TOPIC_TEXT_MAX  65536u /* any filter */
#define KNOWN_TOPIC_MAX 256u
#define READ_SCRATCH    (512u * 1024u)
#define BORROW_MIN      4096u /* payloads from this size are not copied into output buffers */
#define LENT_MAX                                                                                   \
    1024u /* a message of so many bytes is made in place, and copied for who keeps it */
#define PENDING_ACKS                                                                               \
    4096u /* answers of one connection that wait for the store before it is not read */
#define CLOGGED_FACTOR                                                                             \
    4u /* times output_buffer_limit: then a connection is not read until it reads */
#define PAUSE_MAX_MS   1000  /* a publisher is left unread for this long, then the policy acts */
#define STORE_PAUSE_MS 10000 /* a 3.x publisher is left unread while the store takes nothing */
#define SUB_IDS_SEVERAL                                                                            \
    UINT32_MAX                  /* in an entry: more subscription identifiers than it can say      \
                                 */
#define SESSION_VERSION   0x07u /* in a session's record */
#define SESSION_LEAVING   0x40u /* it has ended; its shared messages are being handed on */
#define SESSION_CONNECTED 0x80u
#define LINGER_MS         1000
#define ROUTED            64u   /* matches kept at hand; a power of two */
#define BODY_IDS          1024u /* taken together */

struct client;
struct encode;
struct link;
struct ticket;
struct ticket_part;
struct replay;
struct replay_set;
struct sub_progress;

/* ---- which thread runs a shard, see lodge.h ---- */

enum lodge_place { LODGE_HOME, LODGE_ASKED, LODGE_AWAY };

struct lodge {
    struct lodge_gauge gauge;
    _Atomic uint32_t load; /* the host's in its last period; relaxed: a hint that may lag */
    struct shard **guests; /* the host's; room for all */
    unsigned nguests;
    bool has_events; /* a guest's epoll set is ready */
    int64_t turn_ms; /* when a guest had its last turn */
    uint32_t turns;  /* of this period, that had events or mail */
    bool was_full;   /* under lock: why it was sent home */
    pthread_mutex_t lock;
    pthread_cond_t moved; /* `place` or `stop` of the shard did */
    enum lodge_place place;
    struct post_item ask; /* to the host */
    bool asking;          /* under lock: the mail has not been read yet */
};

/* ---- answers in their order ---- */

struct ack_slot {
    struct ack_slot *next;  /* of the last one: the first */
    struct link *link;      /* NULL: the connection has gone, drop the answer */
    struct replay *replays; /* SUBACK: start when it has left */
    uint8_t type;           /* enum mqtt_type */
    uint8_t reason;
    bool ready;
    uint16_t packet_id;
    uint32_t ncodes;
    uint32_t held;   /* number of the last held ticket before it on this connection; 0: none */
    uint8_t codes[]; /* SUBACK, UNSUBACK; of CONNACK the whole packet */
};

/* ---- outgoing messages ---- */

enum out_state {
    OUT_QUEUED,     /* no packet id yet, or none needed (QoS 0) */
    OUT_WAIT_STORE, /* QoS 2 of a durable session: its id is not on disk yet */
    OUT_WAIT_PUBACK,
    OUT_WAIT_PUBREC,
    OUT_WAIT_PUBCOMP,
    OUT_STATES,
};

/* Links a message whose entry the store has not reported durable yet to its ticket. */
struct out_wait {
    struct out_wait *next, *prev; /* in the part's list */
    struct ticket_part *part;
    struct client *client;
    struct out_msg *out;
};

/* What few messages have. */
struct out_extra {
    uint64_t group; /* the shared group it came through, 0: none */
    uint32_t nids;  /* v5 subscription identifiers */
    uint32_t ids[];
};

struct out_msg {
    struct out_msg *next, *prev; /* in the queue or in flight, in order */
    struct message *msg;         /* NULL: the content is not needed again, see goes_once() */
    struct out_wait *wait;       /* NULL: nothing to wait for */
    uint64_t seq;                /* the entry's number in the store; 0: none */
    struct out_extra *extra;     /* owned; NULL: neither identifiers nor group */
    uint32_t bytes;              /* accounted for the session */
    uint32_t payload;            /* bytes of it; 0 where the payload is not needed again */
    uint16_t packet_id;
    uint8_t qos;
    uint8_t state;
    bool retain;
    bool sent;    /* on some connection: DUP from now on */
    bool counted; /* against this connection's window */
};

struct out_list {
    struct out_msg *first, *last;
    uint32_t count;
};

/*
 * The part of a durable session's queue that is on disk only: entries with seqs [from, to). Behind
 * it stand those that the store has not reported yet, before it the queue in memory.
 */
struct spill {
    struct out_list fresh;
    struct page_mail *page; /* being read; NULL: none */
    uint64_t from, to;
    uint64_t count;      /* entries in [from, to) */
    uint64_t bytes;      /* accounted for them */
    uint64_t late_count; /* of these, spilled at the end since the page was asked for */
    uint64_t late_bytes;
    uint64_t maybe_sent_to; /* QoS 1 entries below this may have been sent before a crash: DUP */
    bool inflight;          /* entries with packet ids may be among them */
};

/* The look for messages that expired while their session is away, see stale.c. */
struct stale {
    struct timer timer;
    struct client *client; /* whose queue it is */
    int64_t first_ms; /* when the first of those that wait expires; INT64_MAX: none is known to */
    int64_t next_ms;  /* not before: a long queue is not read all the time */
    uint64_t read;    /* entries, by the look that goes on */
};

/* Messages on their way to one session; made when the first one is queued or gets a packet id. */
struct outq {
    struct out_list queue;    /* not sent yet */
    struct out_list inflight; /* have a packet id, in the order of sending */
    struct out_msg *resend;   /* first in flight that this connection has not seen; NULL: none */
    struct out_msg **by_id; /* packet_id & (cap - 1): ids are chosen so that they do not collide */
    uint32_t cap;
    uint32_t window;         /* PUBLISH packets that may be unanswered */
    uint32_t counted;        /* that are */
    uint64_t inflight_bytes; /* of payload */
    uint64_t bytes;          /* of everything, on disk or not */
    struct spill disk;
    uint64_t next_seq;
    uint64_t dropped;  /* messages, by the session's own limits */
    uint64_t doubtful; /* the next so many of the queue waited when a subscription ended */
    struct stale stale;
    struct share_moves *moves; /* a reference; NULL: none of them has been handed on */
    uint16_t last_id;
};

/* ---- incoming QoS 2 ids ---- */

struct in_id {
    uint16_t packet_id;    /* 0: empty */
    struct ticket *ticket; /* not NULL: PUBREC waits for it */
};

struct idset_slots {
    uint32_t cap; /* power of two */
    uint32_t count;
    struct in_id at[]; /* open addressing */
};

struct idset {
    struct idset_slots *slots; /* NULL: empty */
};

static inline uint32_t idset_count(const struct idset *s)
{
    return s->slots == NULL ? 0 : s->slots->count;
}

/* ---- wills ---- */

#define WILL_EXPIRY_BYTES 5u /* as a property */

struct will {
    struct message *msg;
    uint32_t delay_s;
    uint32_t expiry_s; /* counts from its publication [MQTT-3.1.3.2.3] */
    bool expires;
};

/* The will of a clean session that was connected when the broker ended: sent a while after the
 * start. */
struct orphan_will {
    struct timer timer;
    struct orphan_will *next;
    struct will *will; /* NULL: sent */
    uint64_t id;       /* under which the store has it */
};

/* ---- sessions ---- */

struct client {
    struct client *hash_next; /* in the table, then in the dying list */
    struct link *link;        /* NULL: not connected */
    uint64_t uid;             /* never used again, also not by a later process on the same store:
                                 the id there of its session, and of its will */
    uint64_t stamp;           /* of the CONNECT that has it */
    struct sub_owner subs;
    struct outq *out; /* NULL: nothing was queued yet */
    struct idset in_ids;
    struct will *will;
    struct replay_set *replays; /* retained messages still to come; NULL: none */
    struct timer timer;         /* disconnected: will delay or session expiry */
    int64_t expires_ms;         /* disconnected: end of the session; INT64_MAX: never */
    uint32_t expiry_s;          /* v5; 3.x: 0 or never */
    uint32_t nshared;           /* of its subscriptions, those to shared groups */
    uint32_t mark;              /* shard's mark when it was last collected for a delivery */
    uint32_t collected;         /* its index there */
    uint32_t id_hash;
    uint16_t id_n;
    uint8_t version;
    bool durable : 1; /* it outlives this connection */
    bool stored : 1;  /* the store knows it: it was durable on some connection */
    bool bridge : 1;
    bool dying : 1;      /* ended; its subscriptions are being removed */
    bool queue_told : 1; /* that messages are being dropped was logged */
    char id[];
};

static inline struct span client_id(const struct client *c)
{
    return span_of(c->id, c->id_n);
}
#define CLIENT_FMT     "%.*s"
#define CLIENT_ARGS(c) (int)(c)->id_n, (c)->id

/* Its id in the store; 0: it has no session there. */
static inline uint64_t client_session(const struct client *c)
{
    return c->stored ? c->uid : 0;
}

/* ---- connections ---- */

struct alias_out {
    uint64_t hash;  /* of the topic */
    uint16_t alias; /* 0: empty */
    uint16_t topic_n;
    char *topic;
};

/* What only MQTT 5.0 needs. */
struct link5 {
    char **alias_in;             /* [alias - 1] -> topic with two bytes of length in front */
    struct alias_out *alias_out; /* open addressing, power of two */
    uint32_t alias_out_cap;
    uint16_t alias_in_max;  /* what we announced */
    uint16_t alias_out_max; /* what the client takes */
    uint16_t alias_out_n;
    uint16_t receive_maximum; /* the client's */
    uint16_t inbound;         /* QoS 1 and 2 received and not answered */
    uint32_t max_packet;      /* the client's; 0: none */
    /* What CONNACK announced holds as long as the connection, whatever a reload says. */
    uint32_t in_max_packet;
    uint16_t in_receive_maximum;
    uint8_t in_max_qos;
    bool in_retain; /* retained messages are taken */
};

enum link_state {
    LINK_CONNECTING, /* CONNACK waits for the store; nothing is read */
    LINK_OPEN,
    LINK_CLOSING,   /* in the doomed list */
    LINK_LINGERING, /* answered, our direction shut; the client is gone from it */
    LINK_GONE,      /* closed and empty; a list of the turn still leads to it */
};

/* 192 bytes, a size class of the allocator: idle connections are counted by the 100,000. */
struct link {
    struct conn conn;
    struct client *client;
    struct listener *listener;
    struct link *ready_next; /* may have bytes to parse */
    struct link *dirty_next; /* has output to write */
    union {                  /* a connection lingers after it was doomed, and is not paused then */
        struct handover *takers; /* while is_taken: the first of those that wait for its end */
        struct link *doomed_next;
        struct link *linger_next;
    };
    union {
        struct link *paused_next;
        struct link *linger_prev;
    };
    struct ack_slot *acks_last; /* circular; NULL: none */
    struct link5 *v5;
    struct sub_progress *progress; /* a SUBSCRIBE or UNSUBSCRIBE that goes on next turn */
    struct timer timer;            /* keep alive; lingering */
    int64_t pause_until_ms;        /* back-pressure; 0: not paused */
    uint32_t last_rx_ms;           /* of the shard's clock, modulo 2^32 */
    uint32_t nacks;
    uint32_t keep_alive_ms; /* 1.5 times the interval; 0: off */
    uint8_t reason;         /* enum mqtt_reason for DISCONNECT; 0: none is sent */
    uint8_t state : 3;      /* enum link_state */
    uint8_t version : 3;
    bool readable : 1; /* the socket may hold bytes */
    bool unparsed : 1; /* the kept tail may hold whole packets */
    bool is_ready : 1; /* in the ready list */
    bool is_dirty : 1;
    bool is_paused : 1;
    bool hung_up : 1;
    bool orderly : 1;      /* DISCONNECT came: no will */
    bool lazy_acks : 1;    /* durability memory: answers do not wait for the store */
    bool store_pause : 1;  /* 3.x: the store has refused a message; pause_until_ms says how long */
    bool plain_out : 1;    /* packets to it are the same as to any other of its version */
    bool opened : 1;       /* CONNACK has left */
    bool said_goodbye : 1; /* it ends because the client or we wished so: no lingering */
    bool had_pause : 1;    /* back-pressure: this publisher was left unread for its time */
    bool is_taken : 1;     /* a CONNECT waits until what had come is handled, see takeover.c */
    bool last_look : 1;    /* its keep alive is over; it is read once more before it ends */
    uint8_t moved_round : 3; /* of the shard's relief, in which bytes left last */
};

/* ---- deliveries ---- */

/* One message for the subscribers of one shard; a mailbox item, and a job when it is paused. */
struct delivery {
    struct post_item mail;
    struct delivery *job_next;
    struct message *msg;         /* see `owns`; else borrowed */
    struct match *match;         /* a reference, or lent */
    struct ticket_part *part;    /* NULL: nothing durable */
    uint32_t target;             /* in match->targets */
    uint32_t filter;             /* cursor: which of the target's filters */
    uint32_t pos, end;           /* cursor: positions in that filter */
    bool own;                    /* pushed by this very shard: counted in self_pending */
    bool owns;                   /* a reference to msg, which its only receiver may take over */
    uint32_t spare;              /* more of them, for its receivers to take */
    uint32_t given, dropped;     /* sessions it was offered to; that had no room for it */
    struct filter_subs **pinned; /* one for each of its filters, NULL: nobody; NULL: not pinned */
};

/*
 * Small messages of one match on their way to another shard, which delivers them one by one:
 * publishers send several to one topic. Nothing of it is durable. They are copies that lie one
 * behind the other, so that nothing is counted, one piece of memory goes from thread to thread
 * instead of one for each, and the processor fetches ahead. While it is the last in its outbox more
 * are added.
 */
struct run {
    struct post_item mail;
    struct match *match; /* a reference */
    uint32_t target;     /* in match->targets */
    uint32_t n;          /* messages */
    uint32_t cap, used;  /* bytes of data */
    uint32_t at;         /* cursor: what lies before is delivered */
    _Alignas(8) uint8_t data[];
};

/* What one session gets of a message. */
struct copy {
    struct client *client;
    uint64_t group; /* shared group, 0: none */
    uint8_t qos;
    bool retain;
    uint32_t nids;
    uint32_t ids_at; /* in the shard's id scratch, when nids > 0 */
    uint32_t id;     /* the only one, when nids is 1 */
};

/* ---- the shard ---- */

/* Parts of tickets that go somewhere together, see ticket.c. */
#define PARTS_AHEAD 8u
struct part_list {
    struct ticket_part *first, *last; /* by `next` */
    struct ticket_part *recent[PARTS_AHEAD];
    uint32_t n;
};

/* To one shard: what stands for many messages, and its sender may still add to (post_growing()). */
struct onward {
    struct run *run;        /* the last one; may be gone when post_growing() is something else */
    uint32_t size;          /* of the first run of the last match, and */
    uint32_t bytes;         /* what all of its messages took */
    struct part_list parts; /* likewise */
};

#define CLIENT_SEGMENTS 256u /* a power of two */

/* A part of the table of sessions, see clients.c. */
struct client_segment {
    struct client **buckets; /* NULL: nothing was ever there */
    uint32_t cap;            /* a power of two, or 0 */
    uint32_t n;
};

/* Where a walk over all sessions is; zeroed: at its beginning. */
struct clients_walk {
    uint32_t segment;
    uint32_t at;  /* bucket in it */
    uint32_t cap; /* that it had when it was entered */
};

#define RELIEF_ROUNDS 8u /* link.moved_round has the bits */

/* The look for who holds memory, see relief.c. */
struct relief {
    int64_t since_ms;       /* of the pressure; 0: there is none */
    int64_t round_since_ms; /* since then connections have to show that they read */
    int64_t next_ms;        /* when a slow consumer may be closed again */
    size_t most;            /* held by the worst so far */
    uint64_t worst;         /* its uid; 0: nobody holds much */
    uint32_t worst_hash;    /* of its id */
    struct clients_walk walk;
    unsigned round;
    bool looking;
    bool though_it_reads;
};

/* Whether tickets of a publisher were worth holding lately, see ticket.h. */
struct hold_memo {
    uint32_t publisher; /* of its uid */
    uint16_t skip;      /* so many are not held from now on */
    uint8_t level;      /* failures, less successes: log2 of the next skip */
};

struct shard {
    struct broker_shared *b;
    const struct config *cfg; /* of this turn */
    unsigned index;
    bool ending;       /* being torn down: nothing is handed on */
    bool keeps;        /* the store keeps: tickets are needed */
    bool spills;       /* it can be read back: queues need not stay in memory */
    _Atomic bool stop; /* release by shard_ask_to_stop(), acquire by the thread */
    pthread_t thread;
    bool started;
    struct lodge lodge;
    int64_t now_ms;
    struct loop loop;
    struct post post;
    struct onward *onward; /* one for each shard */
    uint32_t self_pending; /* deliveries in our own mailbox */
    struct timer_wheel wheel;
    struct subscribers *subs;
    struct match_cache *cache;
    struct client_segment *clients; /* CLIENT_SEGMENTS of them */
    uint32_t clients_n;             /* sessions in all */
    struct link *ready, **ready_last;
    uint32_t nready; /* in that list */
    struct link *dirty;
    uint32_t ndirty;
    struct link *doomed;
    struct handover *takers, **takers_last; /* CONNECTs whose older connection has ended */
    struct link *paused;
    struct link *lingering; /* waiting for their peers to read our last words */
    struct delivery *jobs, **jobs_last;
    struct replay_set *replays, **replays_last; /* clients with retained messages to come */
    struct client *dying;
    bool work_left; /* the next wait is none */
    bool backlog;   /* another shard's mailbox is far behind */
    struct relief relief;
    int64_t budget; /* deliveries left in this turn */
    uint32_t mark;  /* moves with every collection */
    struct copy *copies;
    uint32_t copies_cap;
    uint32_t *ids;
    uint32_t ids_n, ids_cap;
    struct metrics metrics;
    struct orphan_will *orphans; /* wills without a session */
    /* Of the turn, to be handed to the store together, see ticket.c. */
    struct store_chain chain;
    /* Chains handed over. Release: partner of the acquire in ticket_entry_del(). */
    _Atomic uint64_t chains;
    uint64_t body_id, body_ids_end;  /* ids for the next bodies: taken many at a time, since all
                                        shards would wait for one another's last one */
    struct ticket *lazy;             /* changes gathered in a turn; NULL: none */
    uint32_t lazy_n;                 /* operations in the one before */
    uint64_t released[64];           /* hashed: QoS 2 ids that `lazy` releases */
    struct ticket *held, *held_last; /* not handed over yet, in their order */
    struct ticket *gone, *gone_last; /* vanished, to be answered at the turn's end */
    uint32_t held_number;            /* counts held tickets */
    struct hold_memo memos[1024];    /* by uid; one may take another's place: it only costs time */
    uint8_t known_topic[KNOWN_TOPIC_MAX]; /* of the last PUBLISH accepted under this cfg */
    size_t known_topic_n;
    uint64_t known_mark; /* match_cache_mark() of its match; 0: none */
    struct match
        *routed[ROUTED]; /* references to the last ones, for the next messages of their topics */
    struct ticket *spare_tickets; /* for the next ones, by unit.next */
    uint32_t nspare_tickets;
    struct out_msg *spare; /* for the next messages under way */
    uint32_t nspare;
    uint64_t nmessages;                     /* under way to sessions: in memory, or asked for */
    _Alignas(64) uint8_t message[LENT_MAX]; /* the one being published, if it is small */
    /* READ_SCRATCH bytes, then TOPIC_TEXT_MAX for one topic or filter. Who calls others while it
     * lies there knows that they put no other one in its place. */
    uint8_t *scratch;
};

/* What a guest's epoll set is called in its host's: no connection and no shard lies at odd
 * addresses. */
static inline void *shard_tag(struct shard *sh)
{
    return (char *)sh + 1;
}
static inline bool is_shard_tag(const void *tag)
{
    return ((uintptr_t)tag & 1) != 0;
}
static inline struct shard *shard_of_tag(void *tag)
{
    return (struct shard *)(void *)((char *)tag - 1);
}

static inline uint64_t shard_body_id(struct shard *sh)
{
    if (sh->body_id == sh->body_ids_end) {
        sh->body_id = broker_new_ids(sh->b, BODY_IDS);
        sh->body_ids_end = sh->body_id + BODY_IDS;
    }
    return sh->body_id++;
}

/* shard.c */
static inline void shard_count(struct shard *sh, enum metric which, int64_t n)
{
    metric_add(&sh->metrics, which, n);
}

/* link.c */
struct link *link_create(struct shard *sh, struct handover *h);
void link_ready(struct shard *sh, struct link *l);
void link_dirty(struct shard *sh, struct link *l);
bool link_parse(struct shard *sh, struct link *l); /* reads and handles packets; true: more to do */
void link_flush(struct shard *sh, struct link *l);
/* Ends a connection at the end of the turn. reason: DISCONNECT's for v5, 0: none. `why` is logged.
 */
void link_close(struct shard *sh, struct link *l, enum mqtt_reason reason, const char *why);
void link_reap(struct shard *sh, struct link *l); /* the end itself */
/* Its end. A list of the turn may still lead to it: whoever takes it from there as LINK_GONE calls
 * link_forget(). */
void link_free(struct shard *sh, struct link *l);
void link_forget(struct link *l);
void link_drop_acks(struct shard *sh, struct link *l); /* answers that will not leave any more */
void link_pause(struct shard *sh, struct link *l, int64_t until_ms);
void link_touch_keepalive(struct shard *sh, struct link *l);
/* True when output waits in the socket so long that messages should stay in the session. */
static inline bool link_is_full(const struct shard *sh, const struct link *l)
{
    return l->conn.blocked && l->conn.out_n >= sh->cfg->output_buffer_limit;
}
/* Above what a v5 client takes. */
static inline bool link_too_large(const struct link *l, size_t n)
{
    return l->v5 != NULL && l->v5->max_packet != 0 && n > l->v5->max_packet;
}
/* Answers in order. NULL: no memory, the link is being closed. */
struct ack_slot *link_slot(struct shard *sh, struct link *l, enum mqtt_type type,
                           uint16_t packet_id, enum mqtt_reason reason, const uint8_t *codes,
                           size_t ncodes);
/* The answer leaves when the ticket is answered; at once where the listener's durability is memory.
 */
void link_slot_wait(struct shard *sh, struct link *l, struct ack_slot *s, struct ticket *t);
void link_slot_ready(struct shard *sh, struct ack_slot *s);
void link_slot_failed(struct shard *sh,
                      struct ack_slot *s); /* the store refused: no answer, close */
void link_ack(struct shard *sh, struct link *l, enum mqtt_type type, uint16_t packet_id,
              enum mqtt_reason reason);

/* takeover.c */
/* A CONNECT for the client of this connection; owns h. */
void takeover_begin(struct shard *sh, struct link *l, struct handover *h);
/* Of a connection that is_taken: bytes were read; what there was to handle was handled; its time is
 * over; it ends. */
void takeover_count(struct link *l, size_t got);
void takeover_look(struct shard *sh, struct link *l);
void takeover_expire(struct shard *sh, struct link *l);
void takeover_release(struct shard *sh, struct link *l);
/* Handles those whose connection has been reaped. */
void takeover_run(struct shard *sh);
/* The shard ends: nobody takes over any more. */
void takeover_drop_all(struct shard *sh);

/* relief.c: a slice of the look for who holds memory; true: more to do at once */
bool relief_run(struct shard *sh);

/* clients.c */
bool clients_init(struct shard *sh);
void clients_fini(struct shard *sh); /* ends them all */
struct client *client_find(struct shard *sh, struct span id);
/* Those whose ids' hashes end alike, by hash_next; NULL: none. */
struct client *clients_of_hash(const struct shard *sh, uint32_t id_hash);
/* Room for n sessions, where there is memory: for a start that knows how many will come. */
void clients_reserve(struct shard *sh, uint64_t n);
/* c has its id, which nobody else has. False: no memory. */
bool clients_put(struct shard *sh, struct client *c);
void clients_remove(struct shard *sh, struct client *c);
/* The sessions of the next bucket, by hash_next; *first may be NULL. False: that was the last one.
 * Sessions may come and go between two calls: who is there all the time is seen at least once. */
bool clients_walk_next(const struct shard *sh, struct clients_walk *w, struct client **first);

/* client.c */
struct client *client_create(struct shard *sh, struct span id);
void client_end(struct shard *sh,
                struct client *c);  /* the session is over; removal goes on in turns */
bool client_bury(struct shard *sh); /* a slice of that; true: more to do */
/* The session's end for the store. Nobody waits for it: found again after a crash it expires again.
 * leaving: as share_end() has it. */
void client_keep_end(struct shard *sh, uint64_t session, bool leaving);
void client_detach(struct shard *sh, struct client *c,
                   bool publish_will); /* its connection has gone */
struct restored_times {
    int64_t disconnected_ms; /* its clocks run since then */
    int64_t will_ms;         /* when its will is due; INT64_MAX: it has none */
    bool was_connected;      /* as the store has it */
    bool leaving;            /* likewise */
};
/* A stored session at start. */
void client_restored(struct shard *sh, struct client *c, const struct restored_times *t);
void client_timer(void *owner, struct timer *t);

/* outq.c */
void outq_detached(struct shard *sh, struct client *c); /* no connection: off to the disk with it */
bool outq_is_doubtful(
    const struct client *c); /* holds entries that may have been sent before a crash */
bool outq_is_loading(
    const struct client *c); /* packet ids may be in use that are not known here yet */
struct outq *outq_of(struct shard *sh, struct client *c); /* makes it; NULL: no memory */
void outq_free_spare(struct shard *sh);                   /* at the shard's end */
void outq_free(struct shard *sh, struct client *c);
/* d: NULL for replays. */
void outq_offer(struct shard *sh, struct delivery *d, struct message *m, const struct copy *copy);
void outq_connected(struct shard *sh, struct client *c); /* a new connection: resume */
void outq_pump(struct shard *sh, struct client *c); /* sends what the window and the socket allow */
/* Hands the messages that came through shared groups to other members: those not sent, and of a
 * session that ends also QoS 1 in flight [MQTT-4.8.2-4 ff.]. */
void outq_move_shared(struct shard *sh, struct client *c, bool session_ends);
/* Likewise what was not sent of one group that the client has left. */
void outq_move_group(struct shard *sh, struct client *c, uint64_t group);
/* A subscription of the client has ended: what waits only for it is not sent any more. */
void outq_unsubscribed(struct client *c);
/* Takes a message off the disk and out of memory that is not in flight, and is not sent. */
void outq_discard(struct shard *sh, struct client *c, struct out_list *l, struct out_msg *o);
bool outq_is_idle(const struct shard *sh,
                  const struct client *c); /* connected, and could send at once */
bool outq_has_room(const struct shard *sh, const struct client *c, const struct message *m);
struct out_msg *outq_find(struct client *c, uint16_t packet_id);
void outq_done(struct shard *sh, struct client *c,
               struct out_msg *o); /* fully acknowledged, or refused */
void outq_received(struct shard *sh, struct client *c, struct out_msg *o); /* PUBREC */
void outq_stored(struct shard *sh, struct client *c,
                 struct out_msg *o); /* its entry is on disk now */
/* The store has not taken its entry. It goes if it was not sent and comes again, else it stays in
 * memory only. */
void outq_refused(struct shard *sh, struct client *c, struct out_msg *o, bool comes_again);

/* idset.c */
struct in_id *idset_find(const struct idset *s, uint16_t packet_id);
struct in_id *idset_add(struct idset *s, uint16_t packet_id); /* NULL: no memory */
void idset_remove(struct idset *s, uint16_t packet_id);
void idset_free(struct idset *s);

/* outq.c, for offer.c */
void outq_move_to(struct out_msg *o, enum out_state s); /* a step that the states allow */
/* Its connection would take a packet now. */
bool outq_can_send(const struct shard *sh, const struct client *c);
bool outq_flight_has_room(const struct shard *sh, const struct outq *q);
/* Gives it a packet id and puts it last in flight; false: no memory or no id. */
bool outq_enter_flight(struct outq *q, struct out_msg *o);
enum out_state outq_wait_state(const struct out_msg *o); /* once it has been sent */
/* Whether a message's content is needed no more once it is sent: the session ends with this
 * connection, so it is never sent again, and no group (0: none) has another member for it. */
bool outq_goes_once(const struct client *c, uint64_t group);

/* outq.c, for spill.c */
struct out_msg *outq_create(struct shard *sh, struct outq *q, const struct encode *e);
/* A reference to its message. False: no memory, for one that was lent. */
bool outq_hold(struct out_msg *o, const struct encode *e);
void outq_destroy(struct shard *sh, struct outq *q, struct out_msg *o); /* off all lists already */
void out_list_append(struct out_list *l, struct out_msg *o);
void out_list_remove(struct out_list *l, struct out_msg *o);
bool outq_put_inflight(struct outq *q, struct out_msg *o, uint16_t packet_id, bool received);
void outq_leave_flight(struct outq *q, struct out_msg *o);

/* handle_subscribe.c, for restore.c: a stored subscription; false: no memory. */
bool subscription_restore(struct shard *sh, struct client *c, struct span text, uint8_t flags,
                          uint32_t id);

/* stale.c */
void stale_init(struct client *c); /* of a new queue */
/* A message is being queued that expires then. */
void stale_note(struct shard *sh, struct client *c, int64_t expires_ms);
/* What has expired leaves memory; true: something has. And what lies on disk is looked through
 * soon. */
bool stale_make_room(struct shard *sh, struct client *c);
/* A page of what lies on disk, of entries below `to`. */
void stale_swept(struct shard *sh, struct client *c, const struct store_page *p, uint64_t to);

/* spill.c */
/* Asks for a page of what is on disk for stale_swept(). False: not now. */
bool spill_sweep(struct shard *sh, struct client *c, uint64_t from);
/* An entry that is not sent: off the disk without coming into memory. */
void spill_drop_entry(struct shard *sh, struct client *c, const struct store_entry *e);
bool spill_is_wanted(const struct shard *sh,
                     const struct client *c); /* a new entry has to go behind what is on disk */
void spill_settle(struct shard *sh,
                  struct client *c); /* what was reported meanwhile finds its place */
void spill_detached(struct shard *sh, struct client *c);
void spill_read(struct shard *sh,
                struct client *c); /* asks for the next page if there is room for it */
void spill_free(struct shard *sh, struct client *c);
/* A message as a stored entry has it, without the entry's retain flag. NULL: no memory. */
struct message *spill_message(const struct store_entry *e);

/* restore.c is restore.h's */

/* encode.c */
enum encode_rc {
    ENCODE_OK,
    ENCODE_DROPPED, /* above the client's packet size, or expired: counts as delivered
                       [MQTT-3.1.2-25] */
    ENCODE_NOMEM,   /* the link is being closed */
};
struct encode {
    struct message *msg;
    struct delivery *of; /* may have references to msg to take over; NULL: none */
    const uint32_t *ids; /* v5 subscription identifiers */
    uint64_t group;      /* shared group, 0: none; not on the wire */
    uint32_t nids;
    uint16_t packet_id;
    uint8_t qos;
    bool dup; /* not behind retain: read together with qos, soon after it was written by bytes, the
                 processor would have to wait */
    bool retain;
};
/* Queues a PUBLISH on the connection. */
enum encode_rc encode_publish(struct shard *sh, struct link *l, const struct encode *e);

/* deliver.c */
/* d is on the stack: the match is lent, and what is left of its references to the message is the
 * caller's. */
void deliver_now(struct shard *sh, struct delivery *d);
void deliver_mail(struct shard *sh, struct post_item *m);
void run_mail(struct shard *sh, struct post_item *m);
bool deliver_jobs(struct shard *sh);               /* true: more to do */
bool shard_ids_room(struct shard *sh, uint32_t n); /* in the scratch for subscription identifiers */
/* n receivers, or all that are left, do not get it as they should, for want of memory. part: NULL,
 * or of its ticket: one of them may be durable, so its publisher must not hear that all is well. */
void delivery_lost(struct shard *sh, struct ticket_part *part, uint32_t n);
struct delivery *delivery_create(struct message *m, struct match *match, uint32_t target,
                                 struct ticket_part *part);
void delivery_free(struct delivery *d);
/* At which QoS a subscription gets a message. */
uint8_t delivery_qos(const struct shard *sh, uint8_t granted, const struct message *m);
/* Gives back what is left of its references to the message. */
void delivery_unref(struct delivery *d);
/* Its message, for who keeps it: no longer one that is lent. NULL: no memory. */
struct message *delivery_own(struct delivery *d);
/* To the subscribers of the filter that the part names; the part is finished. */
void deliver_part(struct shard *sh, struct ticket_part *p);
/* Whether it may go in a run. */
bool run_takes(const struct message *m);
/* A copy of m to another shard, together with others of this match. False: no memory. */
bool run_send(struct shard *sh, struct shard *to, const struct message *m, struct match *match,
              uint32_t target);

/* ahead.c */
#define AHEAD 5u /* messages of the mail */
struct ahead {
    struct span left;  /* not looked at */
    struct span topic; /* of the packet seen last */
    unsigned seen;     /* packets looked at and not handled yet */
};
struct ahead_mail {
    const struct mail *last; /* seen last; NULL: the end */
    const struct mail *mail[AHEAD];
    unsigned n;
};
bool ahead_is_worthwhile(const struct shard *sh);
void ahead_begin(struct ahead *a, struct span in);  /* packets, before the first */
void ahead_step(struct shard *sh, struct ahead *a); /* before each */
bool ahead_of_mail_is_worthwhile(const struct shard *sh);
void ahead_mail_begin(struct shard *sh, struct ahead_mail *a, const struct mail *first);
void ahead_mail_step(struct shard *sh, struct ahead_mail *a);

/* share.c */
/* To a member of the group, here or elsewhere. part: NULL, or one for whoever takes it. Borrows m.
 * False: no memory, nothing was done. */
bool share_dispatch(struct shard *sh, struct share_group *g, struct message *m,
                    struct ticket_part *part, bool own_by_mail);
/* A message whose member has gone: to another one, if there is any. False: no memory, it stays with
 * its session; if that has ended, the next start goes on with it. */
bool share_move(struct shard *sh, struct client *c, struct out_msg *o);
bool share_has_others_online(const struct shard *sh, const struct client *c, uint64_t group);
/* The client's memberships count as connected, or no more. */
void share_set_online(struct shard *sh, struct client *c, bool online);
/* Joins the group of a new subscription; false: no memory. */
bool share_join(struct shard *sh, struct client *c, struct sub *sub, struct span filter);
/* What stands for the client's membership of a group in the records of its entries, and back; 0:
 * none. */
uint32_t share_mark(struct shard *sh, const struct client *c, uint64_t group);
uint64_t share_of_mark(struct shard *sh, const struct client *c, uint32_t mark);
/*
 * A stored session ends, client_end() follows: what it has through its groups is handed to other
 * members, from memory and, in pages, from the disk, and when the store has all of that under their
 * names it hears of the end. Until then it has a record that says so. *leaving false: there is
 * nothing like that, the end can be stored at once. The answer is for share_unref(), when that
 * record is on its way; may be NULL.
 */
struct share_moves *share_end(struct shard *sh, struct client *c, bool *leaving);
void share_unref(struct shard *sh, struct share_moves *mv); /* NULL is fine */
/* A message of the session has been handed on, or (not stored) could not be. */
void share_moved(struct shard *sh, struct share_moves *mv, bool stored);
/* Some are on their way: in the store they may be the session's still. c has a queue. */
bool share_is_moving(const struct client *c);
/* c's queue goes. */
void share_forget(struct shard *sh, struct client *c);
/* What the store is told of the end: leaving is share_end()'s. */
void share_end_op(struct store_op *op, uint64_t session, bool leaving);
/* Removes any subscription, its membership included. */
void share_remove_sub(struct shard *sh, struct client *c, struct sub *sub);

/* route.c */
struct route {
    struct message *msg;      /* a reference, consumed; or lent; NULL: it has been handed on */
    struct client *publisher; /* NULL: none (will of an ended session) */
    struct link *link;        /* gets the answer; NULL: none */
    uint16_t packet_id;
    bool known; /* its topic is the shard's known one */
    uint64_t
        will_of; /* a will of this stored session: its removal goes with its publication; 0: none */
    bool refused;  /* out: the store has no room; nothing was sent */
    bool ticketed; /* out: the answer leaves when the store has it */
    bool matched;  /* out: somebody is interested */
    bool retained; /* out: it is a retained message */
    bool taken;    /* out, without a ticket: a session took it, as far as is known here, */
    bool dropped;  /* or had no room for it */
};
bool route_publish(struct shard *sh, struct route *r); /* false: no memory; nothing was sent */
void route_drop(struct route *r);                      /* what is left of its message */

/* replay.c */
/* *out: NULL if no retained message matches. False: no memory. */
bool replay_create(struct shard *sh, struct sub *sub, struct replay **out);
void replay_append(struct replay ***last, struct replay *r); /* to a list being gathered */
void replay_start(struct shard *sh, struct client *c, struct replay *list); /* owns the list */
void replay_cancel_list(struct replay *list);
void replay_forget(struct client *c); /* all of a session that ends */
bool replay_run(struct shard *sh);    /* a slice; true: more to do */
void replay_fini(struct shard *sh);

/* kept.c: retained messages in the store */
/* Whether the body leaves memory when the store has it. */
bool kept_on_disk(const struct shard *sh, const struct message *m);
/* For retained_on_expiry(), with the broker_shared: gone from the index, gone from the store. */
void kept_expired(void *broker, struct message *m);

/* will.c */
struct will *will_create(const struct connect *c, const struct link *l);
/* The properties of a publish or will that travel with the message, to out (room for p->raw.n);
 * their bytes. */
size_t props_to_forward(const struct props *p, uint8_t *out);
void will_free(struct will **w);
void will_publish(struct shard *sh, struct client *c);
bool will_orphan(struct shard *sh, struct will *w, uint64_t id,
                 int64_t due_ms); /* owns w; false: no memory */
void will_fini(struct shard *sh);

/* handle_*.c */
/* Owns h. Its connection; NULL: there is none, or it waits for an older one. */
struct link *handle_connect(struct shard *sh, struct handover *h);
void connect_completed(struct shard *sh, struct ack_slot *s);
void handle_publish(struct shard *sh, struct link *l, struct span body, uint8_t flags);
void handle_puback(struct shard *sh, struct link *l, struct span body);
void handle_pubrec(struct shard *sh, struct link *l, struct span body);
void handle_pubrel(struct shard *sh, struct link *l, struct span body);
void handle_pubcomp(struct shard *sh, struct link *l, struct span body);
void handle_subscribe(struct shard *sh, struct link *l, struct span body);
void handle_unsubscribe(struct shard *sh, struct link *l, struct span body);
void handle_disconnect(struct shard *sh, struct link *l, struct span body);
void handle_pingreq(struct shard *sh, struct link *l);
/* The topic as the broker uses it: below the listener's mount point, in the shard's scratch behind
 * what was read. False: more bytes than a topic has. */
bool mount_topic(struct shard *sh, const struct link *l, struct span topic, struct span *out);
/* Closes for what a decoder said. */
void handle_malformed(struct shard *sh, struct link *l, enum dec_rc rc, const char *why);
/* A decoder has found control characters in a packet's strings; true: refused as malformed. */
bool handle_controls(struct shard *sh, struct link *l);
void sub_progress_free(struct sub_progress *p);

_Static_assert(sizeof(struct link) <= 192, "a connection has outgrown its size class");
_Static_assert(offsetof(struct client, id) <= 144, "a session of a 16-byte id, its size class");

#endif
