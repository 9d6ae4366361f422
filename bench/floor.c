/* The least that receiving costs: a contestant of ingest.py, for comparison alone. One loop that rests 120 ms
   as ours does, and trusts every byte, which no recorder may.

   floor STEP DIRECTORY PORT/PATH...    until SIGTERM; leaves the number of frames in DIRECTORY/frames
   STEP 1 receives, and counts none, 2 takes packets apart and joins payloads, 3 hashes (SHA-256) as well, 4 seals before
   (ChaCha20-Poly1305, chunks of 64 KiB), 5 writes and syncs each keyframe interval. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define ROOM (1 << 20)
#define CHUNK (64 * 1024)

struct camera {
    int socket, file;
    unsigned char *tail, *chunk;
    size_t kept, filled, since;
    uint64_t number;
    EVP_MD_CTX *digest;
    EVP_CIPHER_CTX *cipher;
};

static int step;
static long frames;
static volatile sig_atomic_t over;
static void stop(int signal) { (void)signal; over = 1; }

static void die(const char *what) { perror(what); exit(1); }

static void ask(int socket, const char *method, const char *url, const char *more) {
    static char text[8192];
    int size = snprintf(text, sizeof text, "%s %s RTSP/1.0\r\nCSeq: 1\r\n%s\r\n", method, url, more);
    if (write(socket, text, size) != size) die("write");
    size_t got = 0;
    while (got < sizeof text - 1) { /* a byte at a time: what follows the answer to PLAY is footage */
        if (read(socket, text + got, 1) != 1) die("read");
        text[++got] = 0;
        if (got >= 4 && !memcmp(text + got - 4, "\r\n\r\n", 4)) break;
    }
    char *body = strstr(text, "Content-Length:");
    for (long left = body ? strtol(body + 15, NULL, 10) : 0; left > 0; left--)
        if (read(socket, text, 1) != 1) die("read");
}

static void chunk_is_full(struct camera *one, unsigned char *sealed) {
    unsigned char nonce[12] = {0};
    int length = CHUNK;
    unsigned char *out = one->chunk;
    memcpy(nonce, &one->number, 8), one->number++;
    if (step >= 4) {
        EVP_EncryptInit_ex(one->cipher, NULL, NULL, NULL, nonce);
        EVP_EncryptUpdate(one->cipher, sealed, &length, one->chunk, CHUNK);
        EVP_CIPHER_CTX_ctrl(one->cipher, EVP_CTRL_AEAD_GET_TAG, 16, sealed + CHUNK);
        out = sealed, length = CHUNK + 16;
    }
    if (step >= 3) EVP_DigestUpdate(one->digest, out, length);
    if (step >= 5 && write(one->file, out, length) != length) die("write");
}

static void add(struct camera *one, const unsigned char *data, size_t size, unsigned char *sealed) {
    while (size) {
        size_t part = CHUNK - one->filled < size ? CHUNK - one->filled : size;
        memcpy(one->chunk + one->filled, data, part);
        data += part, size -= part;
        if ((one->filled += part) == CHUNK) chunk_is_full(one, sealed), one->filled = 0;
    }
}

static void packet(struct camera *one, const unsigned char *rtp, size_t size, unsigned char *sealed) {
    if (size < 14 || (rtp[0] & 0xC0) != 0x80 || (rtp[1] & 0x7F) >= 126) return;
    frames += rtp[1] >> 7;
    int kind = rtp[12] & 0x1F, begins = kind != 28 || rtp[13] & 0x80;
    if (begins) add(one, (const unsigned char *)"\0\0\0\1", 4, sealed);
    if (kind == 28) {
        unsigned char unit = (rtp[12] & 0xE0) | (rtp[13] & 0x1F);
        if (begins) add(one, &unit, 1, sealed);
        if (begins && (unit & 0x1F) == 5 && step >= 5 && one->since++) fdatasync(one->file);
        add(one, rtp + 14, size - 14, sealed);
    } else add(one, rtp + 12, size - 12, sealed);
}

static size_t apart(struct camera *one, const unsigned char *data, size_t size, unsigned char *sealed) {
    size_t at = 0;
    while (size - at >= 4) {
        if (data[at] != '$') { at++; continue; }
        size_t length = data[at + 2] << 8 | data[at + 3];
        if (at + 4 + length > size) break;
        if (data[at + 1] == 0) packet(one, data + at + 4, length, sealed);
        at += 4 + length;
    }
    return at;
}

int main(int count, char **words) {
    if (count < 4) return 2;
    step = atoi(words[1]);
    struct timespec rest = {0, 120 * 1000000L};
    int cameras = count - 3, poll_file = epoll_create1(0);
    struct camera *all = calloc(cameras, sizeof *all);
    unsigned char *buffer = malloc(ROOM), *sealed = malloc(CHUNK + 16), key[32] = {1};
    signal(SIGTERM, stop);
    for (int at = 0; at < cameras; at++) {
        struct camera *one = all + at;
        char url[128], name[512];
        struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(atoi(words[3 + at]))};
        to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        one->socket = socket(AF_INET, SOCK_STREAM, 0);
        if (connect(one->socket, (struct sockaddr *)&to, sizeof to)) die("connect");
        snprintf(url, sizeof url, "rtsp://127.0.0.1:%s", words[3 + at]);
        ask(one->socket, "DESCRIBE", url, "");
        ask(one->socket, "SETUP", url, "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n");
        snprintf(name, sizeof name, "%s/%d", words[2], at);
        if (step >= 5 && (one->file = open(name, O_WRONLY | O_CREAT | O_TRUNC, 0640)) < 0) die(name);
        one->tail = malloc(ROOM), one->chunk = malloc(CHUNK);
        one->digest = EVP_MD_CTX_new(), one->cipher = EVP_CIPHER_CTX_new();
        EVP_DigestInit_ex(one->digest, EVP_sha256(), NULL);
        EVP_EncryptInit_ex(one->cipher, EVP_chacha20_poly1305(), NULL, key, key);
        ask(one->socket, "PLAY", url, "Session: 1\r\n");
        fcntl(one->socket, F_SETFL, O_NONBLOCK);
        epoll_ctl(poll_file, EPOLL_CTL_ADD, one->socket, &(struct epoll_event){EPOLLIN, {.ptr = one}});
    }
    while (!over) {
        struct epoll_event ready[256];
        int found = epoll_wait(poll_file, ready, 256, 250);
        for (int at = 0; at < found; at++) {
            struct camera *one = ready[at].data.ptr;
            memcpy(buffer, one->tail, one->kept);
            ssize_t got = recv(one->socket, buffer + one->kept, ROOM - one->kept, 0);
            if (got < 0 && (errno == EAGAIN || errno == EINTR)) continue;
            if (got <= 0) { epoll_ctl(poll_file, EPOLL_CTL_DEL, one->socket, NULL); continue; }
            if (step < 2) continue;
            size_t size = one->kept + got, done = apart(one, buffer, size, sealed);
            memcpy(one->tail, buffer + done, one->kept = size - done);
        }
        nanosleep(&rest, NULL);
    }
    char name[512];
    snprintf(name, sizeof name, "%s/frames", words[2]);
    FILE *told = fopen(name, "w");
    if (!told) die(name);
    fprintf(told, "%ld\n", frames);
    return fclose(told);
}
