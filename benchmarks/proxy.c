/* The C floor of benchmarks/peers.py: a client, a server and a forwarder of libzmq, one part a message.
 *
 *     proxy serve URL [PEER]    send each message back, or with PEER pass all on, both ways
 *     proxy ask URL SIZE        for each line "OUTSTANDING COUNT" on stdin: with 1 the seconds of each round trip, one a
 *                               line, else the seconds of all
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <zmq.h>

static double now(void) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return at.tv_sec + at.tv_nsec * 1e-9;
}

static void move_all(void *from, void *to) {
    zmq_msg_t message;
    zmq_msg_init(&message);
    while (zmq_msg_recv(&message, from, ZMQ_DONTWAIT) >= 0) {
        zmq_msg_send(&message, to, 0);
        zmq_msg_init(&message);
    }
    zmq_msg_close(&message);
}

static int serve(void *context, const char *url, const char *peer) {
    void *front = zmq_socket(context, ZMQ_DEALER), *back = zmq_socket(context, ZMQ_DEALER);
    if (zmq_bind(front, url)) return 1;
    if (peer && zmq_connect(back, peer)) return 1;
    zmq_pollitem_t items[] = {{front, 0, ZMQ_POLLIN, 0}, {back, 0, ZMQ_POLLIN, 0}};
    for (;;) {
        if (zmq_poll(items, peer ? 2 : 1, -1) < 0) return 1;
        if (items[0].revents) move_all(front, peer ? back : front);
        if (peer && items[1].revents) move_all(back, front);
    }
}

static int ask(void *context, const char *url, size_t size) {
    void *sock = zmq_socket(context, ZMQ_DEALER);
    char *body = calloc(1, size), *into = malloc(size);
    int outstanding, count;
    if (zmq_connect(sock, url)) return 1;
    while (scanf("%d %d", &outstanding, &count) == 2) {
        double began = now();
        if (outstanding == 1) {
            for (int i = 0; i < count; i++) {
                double started = now();
                zmq_send(sock, body, size, 0);
                zmq_recv(sock, into, size, 0);
                printf("%.9f\n", now() - started);
            }
        } else {
            for (int i = 0; i < outstanding; i++) zmq_send(sock, body, size, 0);
            for (int i = 0; i < count; i++) {
                zmq_recv(sock, into, size, 0);
                if (i + outstanding < count) zmq_send(sock, body, size, 0);
            }
            printf("%.9f\n", now() - began);
        }
        fflush(stdout);
    }
    return 0;
}

int main(int count, char **words) {
    void *context = zmq_ctx_new();
    if (count >= 3 && !strcmp(words[1], "serve")) return serve(context, words[2], count > 3 ? words[3] : NULL);
    if (count == 4 && !strcmp(words[1], "ask")) return ask(context, words[2], strtoul(words[3], NULL, 10));
    fprintf(stderr, "usage: proxy serve URL [PEER] | proxy ask URL SIZE\n");
    return 2;
}
