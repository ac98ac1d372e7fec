/* What a program sees of a name: getaddrinfo of whichever C library this is linked with. */
#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

int main(int count, char **names) {
    int status = 0;
    for (int i = 1; i < count; i++) {
        struct addrinfo hints, *found = NULL;
        memset(&hints, 0, sizeof hints);
        hints.ai_family = AF_UNSPEC;
        hints.ai_socktype = SOCK_STREAM;
        int error = getaddrinfo(names[i], "80", &hints, &found);
        printf("%s:", names[i]);
        if (error) {
            printf(" %s", error == EAI_NONAME ? "EAI_NONAME" : error == EAI_AGAIN ? "EAI_AGAIN" : gai_strerror(error));
            status = 1;
        }
        for (struct addrinfo *each = found; each; each = each->ai_next) {
            char text[INET6_ADDRSTRLEN];
            void *address = each->ai_family == AF_INET ? (void *)&((struct sockaddr_in *)each->ai_addr)->sin_addr
                                                       : (void *)&((struct sockaddr_in6 *)each->ai_addr)->sin6_addr;
            printf(" %s", inet_ntop(each->ai_family, address, text, sizeof text));
        }
        printf("\n");
        if (found) freeaddrinfo(found);
    }
    return status;
}
