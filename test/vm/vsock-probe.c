/*
 * What a program in a guest sees of vsock, and whom it can reach (vsock(7)):
 *   cid                the guest's own context id
 *   dial <cid> <port>  "connected", or the error's name
 *   serve <port>       says "listening", then "hello" to whoever comes, for ever
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/vm_sockets.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

static struct sockaddr_vm address(unsigned cid, unsigned port) {
  struct sockaddr_vm at = {.svm_family = AF_VSOCK, .svm_cid = cid, .svm_port = port};
  return at;
}

static int fail(const char *what) {
  printf("%s: %s\n", what, strerrorname_np(errno));
  return 1;
}

int main(int argc, char **argv) {
  if (argc == 2 && strcmp(argv[1], "cid") == 0) {
    unsigned cid = 0;
    int device = open("/dev/vsock", O_RDONLY);
    if (device < 0 || ioctl(device, IOCTL_VM_SOCKETS_GET_LOCAL_CID, &cid) != 0) return fail("cid");
    printf("%u\n", cid);
    return 0;
  }
  int end = socket(AF_VSOCK, SOCK_STREAM, 0);
  if (end < 0) return fail("socket");
  if (argc == 4 && strcmp(argv[1], "dial") == 0) {
    struct sockaddr_vm to = address(strtoul(argv[2], NULL, 10), strtoul(argv[3], NULL, 10));
    if (connect(end, (struct sockaddr *)&to, sizeof to) != 0) return fail("dial");
    char text[128] = "";
    ssize_t count = read(end, text, sizeof text - 1);
    printf("connected, and read %zd bytes\n", count);
    return 0;
  }
  if (argc != 3 || strcmp(argv[1], "serve") != 0) return 2;
  struct sockaddr_vm at = address(VMADDR_CID_ANY, strtoul(argv[2], NULL, 10));
  if (bind(end, (struct sockaddr *)&at, sizeof at) != 0 || listen(end, 8) != 0) return fail("serve");
  printf("listening\n");
  fflush(stdout);
  for (;;) {
    int peer = accept(end, NULL, NULL);
    if (peer < 0) return fail("accept");
    if (write(peer, "hello\n", 6) == 6) sleep(1);
    close(peer);
  }
}
